#!/bin/sh
# A Debian disk in which systemd is the first process, the kernel gives a camera (vivid), and the service is installed as its README says.
#   image.sh FOLDER      leaves disk.img, vmlinuz and initrd.img there. Debian, as root; a minute or two.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
guest="$out/root"

if [ ! -e "$out/debian.done" ]; then
    # the release and the mirror that this machine itself uses
    . /etc/os-release
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Release: $VERSION_CODENAME" | head -n 1)
    rm -rf "$guest"
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,udev,kmod,procps,linux-image-amd64,python3,python3-venv,v4l-utils \
        "$VERSION_CODENAME" "$guest" "$mirror"
    touch "$out/debian.done"
fi

# what a payload computer gets: wheels, and no network to fetch more
rm -rf "$guest/opt/spatialnet-edge" "$guest/wheels"
python3 -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$guest/wheels" "$root[opencv,video]"
chroot "$guest" python3 -m venv /opt/spatialnet-edge
chroot "$guest" /opt/spatialnet-edge/bin/pip install --quiet --no-index --find-links /wheels 'spatialnet-edge[opencv,video]'
rm -rf "$guest/wheels"

# the steps of firmware_examples/systemd/README.md
unit="$root/firmware_examples/systemd"
edge="/opt/spatialnet-edge/bin/spatialnet-edge"
chroot "$guest" id spatialnet > /dev/null 2>&1 || chroot "$guest" useradd --system spatialnet
install -D -m 644 "$unit/payload.toml" -t "$guest/etc/spatialnet-edge"
rm -rf "$guest/root/keys" "$guest/var/lib/spatialnet-edge" "$guest/var/log/spatialnet-edge"
chroot "$guest" sh -euc "
    cd /root
    $edge keygen keys
    install -D -m 644 keys/*.pub -t /etc/spatialnet-edge/trust
    install -o spatialnet -d /var/lib/spatialnet-edge
    cp /opt/spatialnet-edge/lib/python3*/site-packages/spatialnet_edge/models/student.snb /opt/landuse.snb
    $edge sign /opt/landuse.snb --key keys/operations.key
    chmod 644 /opt/landuse.snb
    runuser -u spatialnet -- $edge install /opt/landuse.snb
"
install -m 644 "$unit/spatialnet-edge.service" -t "$guest/etc/systemd/system"

# the camera, and the program that flies the tests
echo vivid > "$guest/etc/modules-load.d/camera.conf"
echo 'options vivid n_devs=1 node_types=0x1 input_types=0x00' > "$guest/etc/modprobe.d/camera.conf"
install -D -m 644 "$here/guest.py" -t "$guest/opt"
install -m 644 "$here/flight.service" -t "$guest/etc/systemd/system"
chroot "$guest" systemctl enable --quiet spatialnet-edge flight

cp "$guest"/boot/vmlinuz-* "$out/vmlinuz"
cp "$guest"/boot/initrd.img-* "$out/initrd.img"
rm -f "$out/disk.img"
mke2fs -q -t ext4 -d "$guest" "$out/disk.img" 3G
