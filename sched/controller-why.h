/* Why things are as they are, as data: what the files that answer rs_controller_why share:
 * controller-why.c (applications, deployments, replicas), controller-why-place.c (what finds no room),
 * controller-why-load.c (scaling, refused requests). why-text.c makes text of it.
 *
 * A reason is {"what", "cause", "weight", figures.., "text": [line, ..], "next"}:
 *   what    what it explains: "build", "pending", "start", "health", "scale", "rollout", "requests", "end"
 *   cause   which of the table in why-text.c it is
 *   weight  "bad": somebody should do something; "waits": it goes on by itself; "note"
 *   text    the figures in words, for people; "next": what to do, or what will happen. Derived.
 *
 * Part of the controller: the same rules as in controller.h.
 */
#pragma once

#include "sched/controller-internal.h"

/* Appends a reason; borrowed, for its figures to be added. */
json_t *rs_ct_reason(json_t *list, const char *what, const char *cause, const char *weight);
/* 2, not 2.0, where it is whole. New. */
json_t *rs_ct_number(double v);
/* The last lines of what a process said, at most `lines` and `bytes`. New. */
json_t *rs_ct_tail(const char *text, unsigned lines);

/* controller-why-place.c: replicas that have no node. */
void rs_ct_why_place(const struct rs_ct_deployment *d, json_t *list);
/* controller-why-roll.c: an update; `error`: of the new version, NULL: none. */
void rs_ct_why_roll(const struct rs_ct_deployment *d, const char *error, json_t *list, int64_t now);
/* controller-why-load.c */
void rs_ct_why_scale(const struct rs_ct_deployment *d, json_t *list, int64_t now);
void rs_ct_why_refused(const struct rs_ct_deployment *d, json_t *list, int64_t now);
void rs_ct_why_app_refused(const struct rs_ct_app *app, json_t *list, int64_t now);
