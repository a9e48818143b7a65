from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="cloud-mask",
    version="1.0.0",
    packages=find_packages(include=["algorithm"]),
    install_requires=Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines(),
)
