"""The paths of the API. A job's file names may hold anything, line ends too."""

from django.urls import path, re_path

from jobs.api import downloads, openapi, preview, problems, views

urlpatterns = [
    path("submit", views.submit),
    path("run", views.run),
    path("health", views.health),
    path("stats", views.stats),
    path("environments", views.environments),
    path("problems", problems.listed),
    path("problems/<str:reason>", problems.page),
    path("openapi.json", openapi.openapi),
    path("status/<str:job_id>", views.status),
    path("logs/<str:job_id>", views.logs),
    path("outputs/<str:job_id>", downloads.outputs),
    path("receipt/<str:job_id>", downloads.receipt),
    path("download/<str:job_id>", downloads.download_all),
    re_path(r"(?s)\Adownload/(?P<job_id>[^/]+)/(?P<name>.+)\Z", downloads.download),
    re_path(r"(?s)\Apreview/(?P<job_id>[^/]+)/(?P<name>.+)\Z", preview.preview),
    path("jobs/<str:job_id>", views.delete),
    path("jobs/<str:job_id>/cancel", views.cancel),
    path("jobs/<str:job_id>/stdin", views.stdin),
]
