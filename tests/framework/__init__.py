# SPDX-License-Identifier: Apache-2.0
"""What drives a whole orchestrator in tests, and what compares the host before and after."""
