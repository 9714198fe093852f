"""Other people's code on the page is what its packages hold, bundled, and nothing else."""

import hashlib
import json
import os
import re
import subprocess
import unittest
from pathlib import Path

from frontend import assets

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = assets.FOLDER / "frontend" / "vendor"
SOURCES = ROOT / "frontend" / "vendor"
MANIFEST = json.loads((BUNDLES / "MANIFEST.json").read_text())["bundles"]
LOCK = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
LICENCES = {"MIT", "Apache-2.0"}


class Vendored(unittest.TestCase):
    def test_the_manifest_has_every_file_with_its_hash(self) -> None:
        rest = {"MANIFEST.json", "THIRD_PARTY_LICENSES.txt"}
        names = [bundle["file"] for bundle in MANIFEST]
        self.assertEqual({path.name for path in BUNDLES.iterdir()}, {*names, *rest})
        for bundle in MANIFEST:
            content = (BUNDLES / bundle["file"]).read_bytes()
            self.assertEqual(hashlib.sha256(content).hexdigest(), bundle["sha256"], bundle["file"])

    def test_every_package_inside_is_locked_and_has_its_licence_with_it(self) -> None:
        texts = (BUNDLES / "THIRD_PARTY_LICENSES.txt").read_text()
        for package in (package for bundle in MANIFEST for package in bundle["packages"]):
            with self.subTest(package["name"]):
                locked = LOCK[f"node_modules/{package['name']}"]
                self.assertEqual(package["version"], locked["version"])
                self.assertEqual(package["integrity"], locked["integrity"])
                self.assertIn(package["licence"], LICENCES)
                title = f"{package['name']} {package['version']} ({package['licence']})\n\n"
                self.assertIn(title, texts)

    def test_the_lock_names_versions_and_hashes_but_no_place(self) -> None:
        asked = json.loads((SOURCES / "package.json").read_text())
        for version in (asked["dependencies"] | asked["devDependencies"]).values():
            self.assertRegex(version, r"^\d+\.\d+\.\d+$")
        self.assertNotIn("://", (SOURCES / "package-lock.json").read_text())
        for name, package in LOCK.items():
            self.assertNotIn("resolved", package, name)
            self.assertTrue(not name or package["integrity"].startswith("sha512-"), name)

    def test_nothing_loads_code_or_asks_for_a_looser_policy(self) -> None:
        # fewer than the policy forbids; what would fail only when somebody does something rare
        for bundle in MANIFEST:
            text = (BUNDLES / bundle["file"]).read_text()
            self.assertFalse(re.search(r"\beval\(|\bFunction\(|\bimport\(", text), bundle["file"])
            self.assertNotIn("sourceMappingURL", text)

    def test_the_packages_give_the_same_bytes_again(self) -> None:
        done = subprocess.run([ROOT / "script/vendor", "--check"], capture_output=True, text=True)
        if done.returncode == 3 and not os.environ.get("CI"):  # CI has a registry, or has failed
            self.skipTest("no package registry can be reached from here, and npm has kept nothing")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
