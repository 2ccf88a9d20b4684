"""Who may have host programs on this node: the machine's owner lists namespaces and service accounts.

In: the pod as it was first recorded, and the owner's rules. Out: None, or why not. Nothing that a pod says of itself
(its status, other annotations) counts; only its namespace and service account, which the API server holds. Pure.
"""

from __future__ import annotations

import msgspec

from agent.model.pod import Pod

SCRIPTS_DISABLED = "ScriptsDisabled"
"""Reason of the event and of the pod's status."""
_DEFAULT_ACCOUNT = "default"


class ScriptRules(msgspec.Struct, frozen=True):
    enabled: bool = False
    namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    """NAME in each of the namespaces, or NAMESPACE/NAME."""

    def refusal(self, pod: Pod) -> str | None:
        """Why this pod of host programs may not run; None: it may."""
        if not self.enabled:
            return "this node does not run host programs (--scripts-enabled)"
        namespace = pod.metadata.namespace
        if namespace not in self.namespaces:
            return f'this node runs no host programs of namespace "{namespace}" (--scripts-namespaces)'
        # A static pod has no account: it counts as the one that pods get when they name none.
        account = pod.spec.serviceAccountName or _DEFAULT_ACCOUNT
        if account not in self.service_accounts and f"{namespace}/{account}" not in self.service_accounts:
            return f'this node runs no host programs of service account "{account}" (--scripts-service-accounts)'
        return None
