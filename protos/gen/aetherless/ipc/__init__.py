# SPDX-License-Identifier: Apache-2.0
"""Generated protobuf code of the Aetherless contracts."""
