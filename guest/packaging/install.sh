#!/bin/sh
# Installs domzero's guest agent in this virtual machine: as a package where there is dpkg or rpm, else as plain files.
#
#   install.sh [--plain] [--root DIRECTORY]    install
#   install.sh --remove [--root DIRECTORY]     remove what was installed as plain files
#
#   --plain           plain files even where packages could be used
#   --root DIRECTORY  plain files of a system that is not running, such as a mounted image; nothing is started
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=
plain=no
remove=no
say() { echo "domzero-guest: $*" >&2; }
while [ $# -gt 0 ]; do
    case $1 in
        --plain) plain=yes ;;
        --remove) remove=yes ;;
        --root) [ -d "${2:-}" ] || { say "--root takes a directory"; exit 2; }; root=$2; plain=yes; shift ;;
        *) say "unknown argument $1"; exit 2 ;;
    esac
    shift
done

running() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    say "only root can do this"
    exit 1
fi

if [ "$remove" = yes ]; then
    if running; then systemctl disable --now domzero-guest.service; fi
    rm -rf "$root/usr/lib/domzero-guest" "$root/usr/share/doc/domzero-guest"
    rm -f "$root/usr/lib/systemd/system/domzero-guest.service" \
        "$root/etc/systemd/system/multi-user.target.wants/domzero-guest.service"
    if running; then systemctl daemon-reload; fi
    say "removed; /etc/domzero-guest.conf stays"
    exit 0
fi

if [ "$plain" = no ]; then
    if command -v dpkg >/dev/null 2>&1; then exec dpkg --install "$here"/domzero-guest_*.deb; fi
    if command -v rpm >/dev/null 2>&1; then exec rpm --upgrade --verbose --replacepkgs "$here"/domzero-guest-*.rpm; fi
fi

python=
for candidate in /usr/bin/python3 /usr/libexec/platform-python /usr/local/bin/python3; do
    if [ -x "$root$candidate" ]; then python=$candidate; break; fi
done
[ -n "$python" ] || { say "Python 3.6 or newer is needed; install the package python3"; exit 1; }
if [ -z "$root" ] && ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))'; then
    say "Python 3.6 or newer is needed; $python is older"
    exit 1
fi

mkdir -p "$root/usr/lib" "$root/usr/lib/systemd/system" "$root/usr/share/doc" "$root/etc"
rm -rf "$root/usr/lib/domzero-guest"
cp -R "$here/files/usr/lib/domzero-guest" "$root/usr/lib/"
cp -R "$here/files/usr/share/doc/domzero-guest" "$root/usr/share/doc/"
chmod -R u+w,go+rX "$root/usr/lib/domzero-guest" "$root/usr/share/doc/domzero-guest"
sed "s|^ExecStart=/usr/bin/python3|ExecStart=$python|" "$here/files/usr/lib/systemd/system/domzero-guest.service" \
    >"$root/usr/lib/systemd/system/domzero-guest.service"
chmod 644 "$root/usr/lib/systemd/system/domzero-guest.service"
if [ ! -e "$root/etc/domzero-guest.conf" ]; then
    cp "$here/files/etc/domzero-guest.conf" "$root/etc/"
    chmod 644 "$root/etc/domzero-guest.conf"
fi

if running; then
    systemctl daemon-reload
    systemctl enable domzero-guest.service
    systemctl restart domzero-guest.service
    say "installed and started"
else
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf /usr/lib/systemd/system/domzero-guest.service "$root/etc/systemd/system/multi-user.target.wants/"
    say "installed; it starts with the next boot where systemd runs it"
fi
