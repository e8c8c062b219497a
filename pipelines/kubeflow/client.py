"""Kubeflow's client, bound to what its API answers: it neither takes a web page for an answer nor repeats what will not change."""

from __future__ import annotations

from typing import Any

import kfp
from kfp_server_api import Configuration, V2beta1GetHealthzResponse
from urllib3.util import Retry

from edm2core.answers import unlike_json

TIMEOUT = (5, 60)  # seconds to connect, to answer
RETRY = Retry(total=2, redirect=False, backoff_factor=0.3)  # a redirection leads to a page to log in


class AnswerError(Exception):
    """Something answered that is not the API; `args[0]` says in words what it is."""


class Client(kfp.Client):  # type: ignore[misc]
    """Raises AnswerError for an answer that is not the API's, and ApiException for a refusal, at once."""

    def _load_config(self, *given: Any, **named: Any) -> Configuration:
        config = super()._load_config(*given, **named)
        config.retries = RETRY
        return config

    def get_kfp_healthz(self, sleep_duration: int = 0) -> V2beta1GetHealthzResponse:
        """Asked once; the original asks five times, printing tracebacks, whatever the answer."""
        rest = self._healthz_api.api_client.rest_client
        if "request" not in vars(rest):  # the first request of all
            rest.request = _checked(rest.request)
        return self._healthz_api.healthz_service_get_healthz()


def _checked(request: Any) -> Any:
    def ask(method: str, url: str, **named: Any) -> Any:
        answer = request(method, url, **{**named, "_request_timeout": named.get("_request_timeout") or TIMEOUT})
        if named.get("_preload_content", True) and (unlike := unlike_json(answer.data, answer.status, answer.getheaders())):
            raise AnswerError(unlike)
        return answer

    return ask
