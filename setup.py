"""How is sfiin built? As pyproject.toml says, with the native kernels where a compiler and Highway are there.

Without them the package installs all the same, and 'sfiin doctor' says what it lacks. The kernels are a plain
shared library behind a C interface, so one wheel serves every version of Python.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

SOURCES = Path("sfiin/export/native")
MACHINE = sysconfig.get_platform().rpartition("-")[2]  # that is compiled for, as _PYTHON_HOST_PLATFORM says
# The least that the library asks of a processor; what is better is found where it runs.
BASELINES = {"x86_64": ["-msse4.2", "-maes", "-mpclmul"], "aarch64": ["-march=armv8-a+crypto"]}


class Wheel(bdist_wheel):
    """A wheel for a platform and any Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tags."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "sfiin.runtime.backends.library._native",
            [str(SOURCES / name) for name in ("kernels.cpp", "parse.cpp", "library.cpp")],
            depends=[str(path) for path in sorted(SOURCES.glob("*.hpp"))],
            include_dirs=[str(SOURCES)],
            libraries=["hwy"],
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-fvisibility=hidden",
                *BASELINES.get(MACHINE, []),
            ],
            extra_link_args=["-Wl,--strip-all"],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"bdist_wheel": Wheel},
)
