# SPDX-License-Identifier: Apache-2.0
"""What the services and the command line share. A library, not a process; no domain type."""
