# SPDX-License-Identifier: Apache-2.0
"""The soak: requests, evictions, redeploys and SIGKILLs at random, for as long as one likes."""
