# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to the nvgrace.passthrough project
"""Names by which others find the driver, its parameter, and what it must not have."""

from __future__ import annotations

import os
import subprocess
import unittest

import vfio_client as vfio
from contract import contract, ours_only
from hostside import ADDRESS, DEVICE, DRIVER, EXPECTED, LAYOUT, MODULE, MODULE_FILE, write_once

IDS = (0x2342, 0x2345, 0x2348, 0x2941, 0x31C2)
PARAMETER = f"/sys/module/{MODULE}/parameters/layout"
# A function of the emulated host that nothing needs; no GPU, and in no id table.
SPARE = "0000:00:03.0"


class Names(unittest.TestCase):
    """Sysfs and module information."""

    @contract("names-sysfs")
    def test_driver_directory_is_the_module_name(self) -> None:
        """Underscores, also where the file has dashes."""
        self.assertEqual(os.path.basename(os.readlink(DEVICE + "/driver")), MODULE)
        self.assertNotIn("-", MODULE)
        self.assertFalse(os.path.exists(DRIVER.replace("_", "-")))

    @contract("names-alias")
    def test_all_aliases_are_override_only(self) -> None:
        """They begin with vfio_pci:, so that nothing binds by itself."""
        done = subprocess.run(["modinfo", "-F", "alias", MODULE_FILE], check=True, stdout=subprocess.PIPE)
        aliases = done.stdout.decode().split()
        self.assertEqual(sorted(aliases), sorted(f"vfio_pci:v000010DEd{number:08X}sv*sd*bc*sc*i*" for number in IDS))

    @contract("names-alias")
    def test_nothing_binds_without_driver_override(self) -> None:
        """A probe of all drivers leaves the GPU alone."""
        write_once(DRIVER + "/unbind", ADDRESS)
        write_once(DEVICE + "/driver_override", "\n")
        try:
            write_once("/sys/bus/pci/drivers_probe", ADDRESS)
            self.assertFalse(os.path.exists(DEVICE + "/driver"))
        finally:
            write_once(DEVICE + "/driver_override", MODULE)
            write_once(DRIVER + "/bind", ADDRESS)

    @contract("review-11")
    def test_there_is_no_attribute_coherent_mem(self) -> None:
        """It was always 1."""
        for directory in (DEVICE, DRIVER, f"/sys/module/{MODULE}"):
            self.assertNotIn("coherent_mem", os.listdir(directory))

    @contract("review-2")
    @ours_only("a demand on this driver's own texts")
    def test_no_text_says_that_it_is_for_virtual_machines(self) -> None:
        """What modinfo shows."""
        done = subprocess.run(["modinfo", MODULE_FILE], check=True, stdout=subprocess.PIPE)
        for word in (" VM", "virtual machine", "QEMU", "KVM"):
            self.assertNotIn(word, done.stdout.decode())


class Layout(unittest.TestCase):
    """The module parameter."""

    @contract("layout-parameter")
    @ours_only("the kernel's own driver has one layout")
    def test_layout_is_visible_and_read_only(self) -> None:
        """It tells which contract is in force."""
        with open(PARAMETER, encoding="ascii") as stream:
            self.assertEqual(stream.read().strip(), LAYOUT)
        self.assertEqual(os.stat(PARAMETER).st_mode & 0o777, 0o444)

    @contract("layout-parameter")
    @ours_only("the kernel's own driver has one layout")
    def test_unknown_layout_is_refused(self) -> None:
        """With a message that names the choice; this test ends with the driver loaded and bound as before."""
        write_once(DRIVER + "/unbind", ADDRESS)
        subprocess.run(["rmmod", MODULE], check=True)
        try:
            done = subprocess.run(["insmod", MODULE_FILE, "layout=nonsense"], stderr=subprocess.PIPE, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"Invalid parameters", done.stderr)
            log = subprocess.run(["dmesg"], check=True, stdout=subprocess.PIPE).stdout.decode()
            self.assertIn("layout=nonsense is none of mainline, bar2", log)
        finally:
            # Binds as well: driver_override still names the module.
            subprocess.run(["insmod", MODULE_FILE, f"layout={LAYOUT}"], check=True)
        self.assertEqual(os.path.basename(os.readlink(DEVICE + "/driver")), MODULE)


class AnyFunction(unittest.TestCase):
    """driver_override is enough, and a function that is no GPU is plain vfio-pci."""

    def setUp(self) -> None:
        """Give the spare function to the driver."""
        self.directory = "/sys/bus/pci/devices/" + SPARE
        if not os.path.exists(self.directory):
            self.skipTest("this host has no spare PCI function")
        self.unbind()
        self.addCleanup(self.give_back)
        write_once(self.directory + "/driver_override", MODULE)
        try:
            write_once(DRIVER + "/bind", SPARE)
        except OSError as error:
            self.fail(f"a function that is no GPU cannot be bound: {error.strerror}")

    def unbind(self) -> None:
        """Leave the function without a driver."""
        if os.path.exists(self.directory + "/driver"):
            write_once(self.directory + "/driver/unbind", SPARE)

    def give_back(self) -> None:
        """Return the function to the driver that it had."""
        self.unbind()
        write_once(self.directory + "/driver_override", "\n")
        write_once("/sys/bus/pci/drivers_probe", SPARE)

    @contract("names-any-id", "behaviour-fallback")
    def test_any_function_can_be_bound(self) -> None:
        """A random number generator, for one: nothing is emulated."""
        with vfio.Device(SPARE) as device:
            for index in range(6):
                self.assertIsNone(device.region(index).areas)
            self.assertEqual(device.config(0, 2), b"\xf4\x1a")

    @contract("mainline-10")
    def test_fallback_device_does_no_harm_to_the_gpu(self) -> None:
        """In 7.0 to 7.2 the GPU's open was EBUSY from then on: while the other is open, and after it was."""
        index = max(EXPECTED)
        with vfio.Device(SPARE), vfio.Device(ADDRESS) as gpu:
            gpu.write(index, 0, b"both")
            self.assertEqual(gpu.read(index, 0, 4), b"both")
        with vfio.Device(ADDRESS) as gpu:
            self.assertEqual(gpu.read(index, 0, 4), b"both")


if __name__ == "__main__":
    unittest.main(verbosity=2)
