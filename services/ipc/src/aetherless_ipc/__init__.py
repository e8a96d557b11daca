# SPDX-License-Identifier: Apache-2.0
"""The ipc service: regions of shared memory, and who may attach to them."""
