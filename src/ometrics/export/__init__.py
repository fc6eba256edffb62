# SPDX-License-Identifier: MIT
"""`Snapshot` to bytes, one module a format; none of them knows the core."""
