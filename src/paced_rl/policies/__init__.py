"""Policies: finding, checking, loading and storing them."""

from paced_rl.policies.description import PolicyDescription, describe_policy, text_digests
from paced_rl.policies.determinism import CUBLAS_CONFIGS, CUBLAS_VARIABLE, deterministic_algorithms
from paced_rl.policies.folders import PolicyFolderError, check_policy_folder, file_digests, resolve_policy, verify_files
from paced_rl.policies.loading import LoadedPolicy, load_policy, open_policy, policy_files

__all__ = [
    "CUBLAS_CONFIGS",
    "CUBLAS_VARIABLE",
    "LoadedPolicy",
    "PolicyDescription",
    "PolicyFolderError",
    "check_policy_folder",
    "describe_policy",
    "deterministic_algorithms",
    "file_digests",
    "load_policy",
    "open_policy",
    "policy_files",
    "resolve_policy",
    "text_digests",
    "verify_files",
]
