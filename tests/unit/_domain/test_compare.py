# Copyright: Contributors to the nvgrace.passthrough project
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running domain against definition: what libvirt adds is no difference, everything else is one."""

from __future__ import annotations

import pytest

from ansible_collections.nvgrace.passthrough.plugins.module_utils._domain.compare import (
    digest,
    runs_as_defined,
    same_domain,
)

INACTIVE = """<domain type='kvm'>
  <name>vm</name>
  <devices>
    <controller type='pci' index='6'><alias name='ua-rp0'/></controller>
    <interface type='network'><source network='default'/><model type='virtio'/></interface>
    <serial type='pty'><target type='system-serial' port='0'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <hostdev mode='subsystem'><source><address bus='0x01'/></source><alias name='ua-gpu0'/></hostdev>
  </devices>
</domain>"""

LIVE = """<domain type='kvm' id='7'>
  <name>vm</name>
  <resource><partition>/machine</partition></resource>
  <devices>
    <controller type='pci' index='6'><alias name='ua-rp0'/></controller>
    <interface type='network'>
      <source network='default' portid='6a' bridge='virbr0'/><target dev='vnet0'/><model type='virtio'/>
      <alias name='net0'/>
    </interface>
    <serial type='pty'>
      <source path='/dev/pts/1'/><target type='system-serial' port='0'/><alias name='serial0'/>
    </serial>
    <channel type='unix'>
      <source mode='bind' path='/run/libvirt/qemu/channel/1-vm/org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0' state='disconnected'/><alias name='channel0'/>
    </channel>
    <hostdev mode='subsystem'><source><address bus='0x01'/></source><alias name='ua-gpu0'/></hostdev>
  </devices>
  <seclabel type='dynamic' model='dac'><label>+64055:+64055</label></seclabel>
</domain>"""


def test_what_libvirt_adds_is_no_difference() -> None:
    assert runs_as_defined(LIVE, INACTIVE)


@pytest.mark.parametrize(("old", "new"), [
    ("bus='0x01'", "bus='0x02'"),
    ("index='6'", "index='7'"),
    ("network='default'", "network='other'"),
    ("<name>vm</name>", "<name>vm</name><vcpu>2</vcpu>"),
    ("<alias name='ua-gpu0'/>", ""),
    ("type='kvm'", "type='qemu'"),
])
def test_everything_else_is_one(old: str, new: str) -> None:
    assert not runs_as_defined(LIVE, INACTIVE.replace(old, new))


def test_the_way_of_writing_does_not_matter() -> None:
    assert same_domain("<a x='1' y='2'>\n  <b/>\n</a>", '<a y="2" x="1"><b></b></a>')
    assert not same_domain("<a x='1'/>", "<a x='2'/>")
    assert digest("a") != digest("b")
