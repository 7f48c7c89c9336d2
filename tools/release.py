"""Refuse a release that does not say what it is: its tag is `v` and the version, and CHANGELOG.md has its section.

usage: python tools/release.py TAG      prints the section
"""
import argparse
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def section(changelog, version):
    "What the changelog says of a version, without its heading; `''` if it says nothing"
    found = re.search(rf'^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$(.*?)(?=^## |^\[|\Z)', changelog, re.M | re.S)
    return found[1].strip() if found else ''


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tag')
    tag = parser.parse_args().tag
    settings = ConfigParser()
    settings.read(ROOT/'settings.ini', encoding='utf-8')
    version = settings['DEFAULT']['version']
    if tag != f'v{version}':
        sys.exit(f"tag {tag} is not v{version}, the version in settings.ini; change one of them")
    text = section((ROOT/'CHANGELOG.md').read_text(encoding='utf-8'), version)
    if not text:
        sys.exit(f"CHANGELOG.md tells nothing of {version}; head what is unreleased with: ## [{version}] - YYYY-MM-DD")
    print(text)


if __name__ == '__main__': main()
