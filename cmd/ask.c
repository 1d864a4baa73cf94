#include "cmd/ask.h"

#include "cmd/head.h"
#include "cmd/values.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/config/config.h"
#include "net/wire/frame.h"

#include <string.h>

/* Room for the rest of the message that carries an answer. */
#define ANSWER_MAX (RS_FRAME_META_MAX - 4096)

struct op {
    const char *name;
    json_t *(*fn)(struct rs_head *h, const json_t *ask);
};

static json_t *failed(const char *kind, const char *text)
{
    json_t *j = json_pack("{s:s, s:s}", "error", text, "kind", kind);

    return j ? j : json_pack("{s:s, s:s}", "error", "(text that is not UTF-8)", "kind", kind);
}

/* The configuration of an ASK, checked. NULL: `why` is the answer. */
static struct rs_config *config_of(const json_t *ask, json_t **why)
{
    rs_auto(rs_freep) char *text = NULL;
    const json_t *j = json_object_get(ask, "config");
    struct rs_config *config = NULL;
    struct rs_diags diags = {0};
    struct rs_buf errors = {0};

    if (!json_is_object(j)) {
        *why = failed("ValueError", "ASK without a config");
        return NULL;
    }
    text = rs_json_dump(j);
    if (rs_config_parse(&config, text, strlen(text), NULL, &diags) < 0) {
        rs_diags_print(&errors, &diags);
        *why = failed("ValueError", rs_buf_text(&errors));
    }
    rs_buf_fini(&errors);
    rs_diags_fini(&diags);
    return config;
}

static json_t *ask_deploy(struct rs_head *h, const json_t *ask)
{
    json_t *why = NULL;
    struct rs_config *config = config_of(ask, &why);
    struct rs_error err = {0};

    if (!config)
        return why;
    rs_head_who(h, "program");
    if (rs_head_put(h, config, &err) < 0)
        return failed("RayServeException", err.msg);
    return json_object();
}

static json_t *ask_delete(struct rs_head *h, const json_t *ask)
{
    const char *app = rs_json_str(ask, "app", NULL);

    if (!app)
        return failed("ValueError", "ASK to delete without an app");
    rs_head_who(h, "program");
    return json_pack("{s:b}", "existed", rs_head_delete(h, app));
}

static json_t *ask_delete_all(struct rs_head *h, const json_t *ask)
{
    (void)ask;
    rs_head_who(h, "program");
    rs_head_delete_all(h);
    return json_object();
}

static json_t *ask_start(struct rs_head *h, const json_t *ask)
{
    json_t *why = NULL, *http = NULL;
    struct rs_config *config = config_of(ask, &why);
    struct rs_error err = {0};

    if (!config)
        return why;
    if (rs_head_start_http(h, config, &http, &err) < 0)
        return failed("RuntimeError", err.msg);
    return json_pack("{s:o}", "http", http);
}

/* {"RUNNING": 2} */
static json_t *count_states(const json_t *replicas)
{
    json_t *counts = json_object(), *r;
    size_t i;

    json_array_foreach (replicas, i, r) {
        const char *state = rs_json_str(r, "state", "?");

        json_object_set_new(counts, state, json_integer(rs_json_int(counts, state, 0) + 1));
    }
    return counts;
}

static void copy_member(json_t *to, const json_t *from, const char *key)
{
    json_t *value = json_object_get(from, key);

    json_object_set_new(to, key, value ? json_incref(value) : json_null());
}

static json_t *overview(const json_t *app)
{
    json_t *j = json_object(), *deployments = json_object(), *d;
    const char *name;

    copy_member(j, app, "status");
    copy_member(j, app, "message");
    copy_member(j, app, "last_deployed_time_s");
    copy_member(j, app, "route_prefix");
    json_object_foreach (json_object_get(app, "deployments"), name, d) {
        json_t *one = json_object();

        copy_member(one, d, "status");
        copy_member(one, d, "status_trigger");
        copy_member(one, d, "message");
        json_object_set_new(one, "replica_states", count_states(json_object_get(d, "replicas")));
        json_object_set_new(deployments, name, one);
    }
    json_object_set_new(j, "deployments", deployments);
    return j;
}

/* What serve.status() shows; `app`: of one application only. */
static json_t *ask_status(struct rs_head *h, const json_t *ask)
{
    rs_auto(rs_json_decrefp) json_t *details = rs_head_details(h);
    const char *only = rs_json_str(ask, "app", NULL), *name;
    json_t *proxies = json_object(), *apps = json_object(), *value;

    json_object_foreach (json_object_get(details, "proxies"), name, value)
        json_object_set_new(proxies, name, json_string(rs_json_str(value, "status", "")));
    json_object_foreach (json_object_get(details, "applications"), name, value)
        if (!only || strcmp(only, name) == 0)
            json_object_set_new(apps, name, overview(value));
    value = json_object();
    json_object_set_new(value, "proxies", proxies);
    json_object_set_new(value, "applications", apps);
    copy_member(value, details, "target_capacity");
    return value;
}

/* A piece of an application that a program deployed by value. */
static json_t *ask_value(struct rs_head *h, const json_t *ask)
{
    struct rs_error err = {0};
    json_t *piece = rs_values_read(rs_head_values_dir(h), rs_json_str(ask, "name", ""),
                                   rs_json_int(ask, "at", 0), &err);

    return piece ? piece : failed("RayServeException", err.msg);
}

static const struct op ops[] = {
    {"deploy", ask_deploy}, {"delete", ask_delete}, {"delete_all", ask_delete_all},
    {"start", ask_start},   {"status", ask_status}, {"value", ask_value},
};

json_t *rs_ask(struct rs_head *h, const json_t *ask)
{
    rs_auto(rs_freep) char *text = NULL;
    const char *name = rs_json_str(ask, "op", "");
    json_t *answer = NULL;

    for (size_t i = 0; i < RS_COUNT(ops); i++)
        if (strcmp(ops[i].name, name) == 0)
            answer = ops[i].fn(h, ask);
    if (!answer)
        return failed("RayServeException", "the head does not know this operation");
    text = rs_json_dump(answer);
    if (strlen(text) > ANSWER_MAX) {
        json_decref(answer);
        return failed("RayServeException", "the answer is longer than a message may be");
    }
    return answer;
}
