"""Two pages: one that enqueues, one that looks."""
import json

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from .tasks import pack


@require_GET
def index(_):
    return JsonResponse({"try": 'POST /orders {"item": "tea", "quantity": 3}, then GET /orders/{id}'})


@csrf_exempt
@require_POST
def order(request):
    wanted = json.loads(request.body)
    result = pack.enqueue(wanted["item"], wanted["quantity"])
    return JsonResponse({"id": result.id}, status=202)


@require_GET
def status(_, order_id):
    result = pack.get_result(str(order_id))
    return JsonResponse({"status": result.status, "result": result.return_value if result.status == "SUCCESSFUL" else None})


urlpatterns = [path("", index), path("orders", order), path("orders/<uuid:order_id>", status)]
