"""A Chromium for the tests of the live views: the one that is here, or one that is fetched."""
import os, shutil, subprocess, sys
from pathlib import Path


def find():
    "Path of a Chromium on this machine (Debian's, Google's, or the one that playwright fetched), or None"
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name): return shutil.which(name)
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        return p.chromium.executable_path if Path(p.chromium.executable_path).exists() else None


def fetch():
    "From Debian where this is root's machine, else from playwright's own server"
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    if find() is None: subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"])
    return find()


if __name__ == "__main__":
    found = find() or fetch()
    print(f"browser for the live tests: {found}" if found else "no browser could be fetched: the tests of the live views will be skipped")
