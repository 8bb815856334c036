import os

import pytest

from ray_serve_cai import errors
from ray_serve_cai.errors import ERRORS_BY_NAME, RayServeCaiError

CODES = {
    "RayServeCaiError": 70,
    "UsageError": os.EX_USAGE,
    "ModelNotFoundError": os.EX_NOINPUT,
    "UnavailableError": os.EX_UNAVAILABLE,
    "HubError": os.EX_UNAVAILABLE,
    "EngineError": os.EX_SOFTWARE,
    "HookError": os.EX_SOFTWARE,
    "ResourceError": os.EX_OSERR,
    "SessionChangedError": os.EX_TEMPFAIL,
    "TokenError": os.EX_NOPERM,
    "ConfigError": os.EX_CONFIG,
    "VersionMismatchError": os.EX_CONFIG,
    "TlsError": os.EX_CONFIG,
    "AddressTakenError": os.EX_CONFIG,
    "PlatformDownError": os.EX_UNAVAILABLE,
    "PlatformError": os.EX_SOFTWARE,
    "PlatformAccessError": os.EX_NOPERM,
    "PlatformMissingError": os.EX_NOINPUT,
    "PlatformRefusedError": os.EX_CONFIG,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_codes_are_those_of_sysexits(name: str, code: int) -> None:
    assert ERRORS_BY_NAME[name].exit_code == code


def test_every_error_of_the_module_travels_by_name() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == set(ERRORS_BY_NAME) == set(CODES)


def test_the_docstring_draws_the_whole_tree_with_its_codes() -> None:
    drawn = {word: line for line in (errors.__doc__ or "").splitlines() for word in line.split()}
    for name, code in CODES.items():
        assert str(code) in drawn[name]


def test_one_catch_takes_them_all() -> None:
    assert all(issubclass(error, RayServeCaiError) for error in ERRORS_BY_NAME.values())


@pytest.mark.parametrize(("code", "name"), [(64, "UsageError"), (70, "RayServeCaiError"), (78, "ConfigError"), (127, "RayServeCaiError")])
def test_an_exit_code_says_the_most_general_error(code: int, name: str) -> None:
    assert errors.by_exit_code(code) is ERRORS_BY_NAME[name]
