"""The API and the page behind one address."""

from django.urls import include, path, re_path

import frontend.views
from jobs.api import page, views
from jobs.api.parameters import methods

urlpatterns = [
    path("", page.front_door(frontend.views.page)),
    path("j/<str:job_id>", page.job_link(frontend.views.page)),
    path("form", page.form(frontend.views.page)),
    path("static/<path:name>", methods("GET")(frontend.views.asset(views.not_found))),
    path("", include("jobs.api.urls")),
    re_path(r"(?s)\A.*\Z", views.not_found),
]

handler400 = "jobs.api.errors.bad_request"
handler404 = "jobs.api.errors.not_found"
handler500 = "jobs.api.errors.server_error"
