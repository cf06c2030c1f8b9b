"""Builds the one extension `lbcore._core` out of `src_ext/`; all else is in pyproject.toml.

`LBCORE_SANITIZE=1` builds with bounds checks, AddressSanitizer and UndefinedBehaviorSanitizer (see `make sanitize`).
"""

import os

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("LBCORE_SANITIZE") == "1"

# -g0: distributions' CFLAGS carry -g, which makes the module five times as large.
optimise = ["-O3", "-g0", "-fno-math-errno", "-ffp-contract=off"]
sanitise = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

core = Extension(
    "lbcore._core",
    ["src_ext/_core.pyx"],
    include_dirs=["src_ext", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION")],
    extra_compile_args=sanitise if SANITIZE else optimise,
    extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
)

setup(
    ext_modules=cythonize(
        [core],
        build_dir="build/cython-sanitize" if SANITIZE else "build/cython",
        include_path=["."],
        compiler_directives={
            "language_level": 3,
            # A hot method that is a plain method descriptor is called 1.3 to 1.65 times as fast (docs/performance.md).
            "binding": False,
            "auto_pickle": False,
            "embedsignature": True,
            "boundscheck": SANITIZE,
            "wraparound": False,
            "initializedcheck": SANITIZE,
            "cdivision": True,
        },
    )
)
