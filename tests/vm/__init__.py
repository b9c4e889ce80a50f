"""The virtual machine lab: real systemd and cgroups v2 for the tests, on any machine that runs QEMU. See README.md."""
