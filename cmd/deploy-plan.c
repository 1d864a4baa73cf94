#include "cmd/deploy-plan.h"

#include "cmd/plan_text.h"
#include "cmd/terminal.h"
#include "core/base/alloc.h"
#include "core/base/json.h"

#include <ctype.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 100, WIDTH_MAX = 120 };

static void print_json(const json_t *j)
{
    rs_auto(rs_freep) char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(10));

    printf("%s\n", text ? text : "null");
}

static size_t width_of(const struct rs_terminal *t)
{
    return !t->tty ? 80 : t->width > WIDTH_MAX ? WIDTH_MAX : t->width;
}

/* --- plan ---------------------------------------------------------------------------------------- */

/* Changed code is imported for it there; that may take a while. */
static int fetch_plan(const struct rs_remote *r, const json_t *doc, json_t **ret,
                      struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *plan = NULL;
    char path[64];

    if (rs_remote_ask(r, "POST", "/api/v1/plan", doc, &plan, err) < 0)
        return -1;
    snprintf(path, sizeof(path), "/api/v1/plan/%lld", (long long)rs_json_int(plan, "id", 0));
    while (strcmp(rs_json_str(plan, "state", "ready"), "building") == 0) {
        (void)poll(NULL, 0, LOOK_MS);
        json_decref(plan);
        plan = NULL;
        if (rs_remote_ask(r, "GET", path, NULL, &plan, err) < 0)
            return -1;
    }
    *ret = rs_steal(plan);
    return 0;
}

int rs_deploy_plan(const struct rs_remote *r, const json_t *doc, bool json, bool no_restart,
                   struct rs_error *err)
{
    struct rs_terminal terminal = rs_terminal_of(STDOUT_FILENO);
    rs_auto(rs_json_decrefp) json_t *plan = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    int64_t restarts;

    if (fetch_plan(r, doc, &plan, err) < 0)
        return -1;
    if (json) {
        print_json(plan);
    } else {
        rs_deploy_plan_print(plan, width_of(&terminal), terminal.color, &out);
        printf("plan for %s; nothing was changed\n%s", r->base, rs_buf_text(&out));
    }
    restarts = rs_json_int(json_object_get(plan, "summary"), "restarts", 0);
    if (no_restart && restarts > 0)
        return rs_error_set(err, RS_CONFLICT,
                            "it would restart %lld replica%s, which --no-restart does not allow",
                            (long long)restarts, restarts == 1 ? "" : "s");
    return 0;
}

/* --- history ------------------------------------------------------------------------------------- */

static int fetch_history(const struct rs_remote *r, const char *app, json_t **ret,
                         struct rs_error *err)
{
    rs_auto(rs_buf_fini) struct rs_buf path = {0};

    rs_buf_puts(&path, "/api/v1/applications/");
    rs_remote_encode(&path, app);
    rs_buf_puts(&path, "/history");
    return rs_remote_ask(r, "GET", rs_buf_text(&path), NULL, ret, err);
}

int rs_deploy_history(const struct rs_remote *r, const char *app, bool json, struct rs_error *err)
{
    struct rs_terminal terminal = rs_terminal_of(STDOUT_FILENO);
    rs_auto(rs_json_decrefp) json_t *history = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    if (fetch_history(r, app, &history, err) < 0)
        return -1;
    if (json) {
        print_json(history);
        return 0;
    }
    rs_history_print(history, width_of(&terminal), &out);
    fputs(rs_buf_text(&out), stdout);
    return 0;
}

int rs_deploy_rollback(const struct rs_remote *r, const char *app, int64_t to, int64_t *ret,
                       struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *answer = NULL;
    rs_auto(rs_json_decrefp) json_t *body =
        to ? json_pack("{s:I}", "to", (json_int_t)to) : json_object();
    rs_auto(rs_buf_fini) struct rs_buf path = {0};

    rs_buf_puts(&path, "/api/v1/applications/");
    rs_remote_encode(&path, app);
    rs_buf_puts(&path, "/rollback");
    if (rs_remote_ask(r, "POST", rs_buf_text(&path), body, &answer, err) < 0)
        return -1;
    *ret = rs_json_int(answer, "revision", 0);
    return 0;
}

int rs_deploy_roll(const struct rs_remote *r, const char *app, const char *action,
                   struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *answer = NULL, *body = json_pack("{s:s}", "action", action);
    rs_auto(rs_buf_fini) struct rs_buf path = {0};

    rs_buf_puts(&path, "/api/v1/applications/");
    rs_remote_encode(&path, app);
    rs_buf_puts(&path, "/rollout");
    return rs_remote_ask(r, "POST", rs_buf_text(&path), body, &answer, err);
}

bool rs_deploy_paused(const json_t *app, const char *name, bool tell)
{
    const char *key;
    json_t *d;
    bool paused = false;

    json_object_foreach (json_object_get(app, "deployments"), key, d) {
        const json_t *roll = json_object_get(json_object_get(d, "rserve"), "rollout");

        if (strcmp(rs_json_str(d, "status", ""), "HEALTHY") == 0)
            continue;
        if (strcmp(rs_json_str(roll, "phase", ""), "paused") != 0 ||
            strcmp(rs_json_str(roll, "why", ""), "pause_after") != 0)
            return false;
        paused = true;
        if (tell)
            printf("%s#%s: %s\n", name, key, rs_json_str(roll, "text", ""));
    }
    return paused;
}

/* As a shell takes it. */
static char *quoted(const char *text)
{
    struct rs_buf b = {0};
    bool plain = *text && *text != '-';

    for (const char *c = text; *c; c++)
        plain = plain && (isalnum((unsigned char)*c) || strchr("-_./:@%+=,", *c));
    if (plain)
        return rs_strdup(text);
    rs_buf_puts(&b, "'");
    for (; *text; text++) {
        if (*text == '\'')
            rs_buf_puts(&b, "'\\''");
        else
            rs_buf_append(&b, text, 1);
    }
    rs_buf_puts(&b, "'");
    return rs_buf_steal(&b);
}

static void tell_way_back(const struct rs_remote *r, const char *app, const char *address)
{
    rs_auto(rs_json_decrefp) json_t *history = NULL;
    rs_auto(rs_freep) char *name = quoted(app);
    rs_auto(rs_freep) char *at = address ? quoted(address) : NULL;
    struct rs_error err = {0};
    const json_t *to;

    if (fetch_history(r, app, &history, &err) < 0)
        return; /* it never ran */
    to = json_object_get(history, "back_to");
    if (json_is_integer(to))
        printf("revision %lld of %s ran before; to go back to it:\n"
               "    rserve deploy --rollback %s%s%s\n",
               (long long)json_integer_value(to), app, name, at ? " --address " : "", at ? at : "");
}

void rs_deploy_tell_way_back(const struct rs_remote *r, const json_t *doc, const char *address)
{
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    struct rs_error err = {0};
    const json_t *app;
    size_t i;

    if (rs_remote_details(r, &details, &err) < 0)
        return;
    json_array_foreach (json_object_get(doc, "applications"), i, app) {
        const char *name = rs_json_str(app, "name", "default");
        const char *status = rs_json_str(
            json_object_get(json_object_get(details, "applications"), name), "status", "");

        if (strcmp(status, "DEPLOY_FAILED") == 0 || strcmp(status, "UNHEALTHY") == 0)
            tell_way_back(r, name, address);
    }
    fflush(stdout);
}
