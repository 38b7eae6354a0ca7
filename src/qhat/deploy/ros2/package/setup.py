"""How colcon and pip install the package."""

from glob import glob

from setuptools import find_packages, setup

NAME = "@PACKAGE@"

setup(
    name=NAME,
    version="@VERSION@",
    description="A trained qhat policy: @DESCRIPTION@",
    license="@LICENSE@",
    packages=find_packages(),
    package_data={NAME: ["policy/*", "*.yaml", "*.txt"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools", "numpy", "pyyaml"],
    zip_safe=False,
    entry_points={"console_scripts": [f"drive = {NAME}.node:main"]},
)
