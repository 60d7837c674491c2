from typing import Any, Dict

from django.http import HttpRequest, JsonResponse
from django.urls import path

import procbroker

from . import work

broker = procbroker.Broker()


def job(request: HttpRequest, key: str) -> JsonResponse:
    """Start the job of a key unless it runs, however many workers are asked at once; or stop it."""
    try:
        if request.method == "DELETE":
            return JsonResponse(shown(broker.destroy(f"job-{key}")[0]))
        child = broker.process(work.render, (key,), name=f"job-{key}", if_exists="reuse", labels={"app": "jobs"})
        return JsonResponse(shown(child), status=201 if child.outcome == "created" else 200)
    except procbroker.NotFound as error:
        return JsonResponse({"error": str(error)}, status=404)
    except (procbroker.ShuttingDown, procbroker.BrokerUnavailable) as error:
        return JsonResponse({"error": str(error)}, status=503)


def jobs(_: HttpRequest) -> JsonResponse:
    """List the jobs that run."""
    return JsonResponse({"jobs": [shown(child) for child in broker.list(labels={"app": "jobs"})]})


def shown(child: procbroker.Child) -> Dict[str, Any]:
    return {"name": child.name, "state": child.state, "pid": child.pid}


urlpatterns = [path("jobs", jobs), path("jobs/<key>", job)]
