"""Command lines: `memd`, and `qemu-system-memd` for who knows QEMU's."""
