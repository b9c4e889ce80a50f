"""The virtual machine lab: real systemd and cgroups v2 for tests, wherever QEMU runs. See README.md."""
