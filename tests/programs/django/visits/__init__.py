# SPDX-License-Identifier: Apache-2.0
"""A Django project of one application: it counts visits in SQLite."""
