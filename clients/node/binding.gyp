# SPDX-License-Identifier: Apache-2.0
{
    "targets": [
        {
            "target_name": "aetherless",
            "sources": ["native/addon.c"],
            "cflags": ["-Wall", "-Wextra"],
        }
    ]
}
