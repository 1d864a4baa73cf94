/* rserve deploy and rserve delete: change what a running `run` or `head` serves. */
#include "cmd/app_source.h"
#include "cmd/deploy-plan.h"
#include "cmd/deployed.h"
#include "cmd/progress.h"
#include "cmd/remote.h"
#include "cmd/terminal.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 100 };

#define ADDRESS_OPTION(type)                                                                       \
    {                                                                                              \
        "address", 'a', RS_OPT_STRING, offsetof(type, address), "URL",                             \
            "where the REST API is (default $RSERVE_ADDRESS, what runs on this machine, "          \
            "http://127.0.0.1:8265)"                                                               \
    }
#define WAIT_OPTIONS(type)                                                                         \
    {                                                                                              \
        "no-wait",   0,                                                                            \
        RS_OPT_FLAG, offsetof(type, no_wait),                                                      \
        NULL,        "do not wait for what comes of it"},                                          \
    {                                                                                              \
        "quiet", 'q', RS_OPT_FLAG, offsetof(type, quiet), NULL, "say only what failed"             \
    }

/* --- what comes of it ---------------------------------------------------------------------------- */

struct watch {
    struct rs_remote remote;
    struct rs_progress *progress;
    const json_t *doc;  /* what should run; NULL: .. */
    const char *absent; /* .. this is to go; "": everything is */
};

static bool names(const json_t *doc, const char *name)
{
    const json_t *app;
    size_t i;

    json_array_foreach (json_object_get(doc, "applications"), i, app)
        if (strcmp(rs_json_str(app, "name", "default"), name) == 0)
            return true;
    return false;
}

static int running_of(const json_t *deployment)
{
    const json_t *replica;
    size_t i;
    int n = 0;

    json_array_foreach (json_object_get(deployment, "replicas"), i, replica)
        n += strcmp(rs_json_str(replica, "state", ""), "RUNNING") == 0;
    return n;
}

static void fill(struct rs_progress_app *to, const char *name, const json_t *app)
{
    json_t *all = json_object_get(app, "deployments"), *d;
    struct rs_progress_deployment *list = rs_alloc((json_object_size(all) + 1) * sizeof(*list));
    const char *key;
    size_t n = 0;

    json_object_foreach (all, key, d)
        list[n++] = (struct rs_progress_deployment){
            .name = key,
            .status = rs_json_str(d, "status", ""),
            .message = rs_json_str(d, "message", ""),
            .running = running_of(d),
            .target = (int)rs_json_int(d, "target_num_replicas", 0),
        };
    *to = (struct rs_progress_app){
        .name = name,
        .route_prefix = rs_json_str(app, "route_prefix", NULL),
        .status = rs_json_str(app, "status", ""),
        .message = rs_json_str(app, "message", ""),
        .deployments = list,
        .n_deployments = n,
    };
}

static void show(struct rs_buf *text)
{
    fwrite(rs_buf_text(text), 1, rs_buf_len(text), stdout);
    fflush(stdout);
    rs_buf_fini(text);
}

/* What is not at its end yet waits for somebody to say that it may go on. */
static bool all_paused(const struct watch *w, json_t *apps)
{
    const char *name;
    json_t *app;

    for (int tell = 0; tell < 2; tell++)
        json_object_foreach (apps, name, app)
            if (names(w->doc, name) && strcmp(rs_json_str(app, "status", ""), "DEPLOYING") == 0 &&
                !rs_deploy_paused(app, name, tell))
                return false;
    return true;
}

/* Feeds those that this is about. True: all of it has settled. */
static bool look(struct watch *w, const json_t *details)
{
    json_t *apps = json_object_get(details, "applications"), *app;
    struct rs_progress_app *list = rs_alloc((json_object_size(apps) + 1) * sizeof(*list));
    struct rs_buf out = {0};
    const char *name;
    size_t n = 0, wanted = 0;

    json_object_foreach (apps, name, app) {
        bool ours = w->doc ? names(w->doc, name) : !w->absent[0] || !strcmp(w->absent, name);

        wanted += w->doc && ours;
        if (ours || strcmp(rs_json_str(app, "status", ""), "DELETING") == 0)
            fill(&list[n++], name, app);
    }
    rs_progress_feed(w->progress, &(struct rs_progress_snapshot){list, n}, rs_clock_now(), &out);
    show(&out);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)list[i].deployments);
    free(list);
    if (rs_progress_busy(w->progress))
        return w->doc && all_paused(w, apps);
    return w->doc ? wanted >= json_array_size(json_object_get(w->doc, "applications")) : n == 0;
}

static void url_of(const struct rs_remote *remote, const json_t *details, char *out, size_t size)
{
    const json_t *http = json_object_get(details, "http_options");
    const char *host = rs_json_str(http, "host", "127.0.0.1");
    json_int_t port = rs_json_int(http, "port", 0);
    const char *at = strstr(remote->base, "://");

    out[0] = '\0';
    if (!port || !at)
        return;
    if (strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0)
        snprintf(out, size, strchr(host, ':') ? "http://[%s]:%d" : "http://%s:%d", host, (int)port);
    else
        snprintf(out, size, "http://%.*s:%d", (int)(strrchr(at, ':') - at - 3), at + 3, (int)port);
}

static int watch(struct watch *w, bool quiet, struct rs_error *err)
{
    struct rs_terminal terminal = rs_terminal_of(STDOUT_FILENO);
    struct rs_progress_conf conf = {
        .tty = terminal.tty,
        .color = terminal.color,
        .width = terminal.width,
        .height = terminal.height,
        .quiet = quiet,
    };
    struct rs_buf out = {0};
    char url[300];
    size_t failed;

    for (bool settled = false; !settled;) {
        rs_auto(rs_json_decrefp) json_t *details = NULL;

        if (rs_remote_details(&w->remote, &details, err) < 0) {
            rs_progress_free(w->progress);
            return -1;
        }
        if (!w->progress) {
            url_of(&w->remote, details, url, sizeof(url));
            conf.url = url;
            w->progress = rs_progress_new(&conf, rs_clock_now());
        }
        settled = look(w, details);
        if (!settled)
            (void)poll(NULL, 0, LOOK_MS);
    }
    failed = rs_progress_failed(w->progress);
    rs_progress_end(w->progress, &out);
    show(&out);
    rs_progress_free(w->progress);
    return failed ? RS_EXIT_FAILED : 0;
}

/* --- deploy -------------------------------------------------------------------------------------- */

struct deploy_options {
    struct rs_app_source source;
    const char *address, *rollback, *history, *if_match, *resume, *abort;
    int64_t to;
    bool no_wait, quiet, add, plan, json, no_restart;
};

#define AT(field) offsetof(struct deploy_options, field)
static const struct rs_option deploy_options[] = {
    ADDRESS_OPTION(struct deploy_options),
    {"add", 0, RS_OPT_FLAG, AT(add), NULL, "leave applications that FILE does not name"},
    {"plan", 0, RS_OPT_FLAG, AT(plan), NULL, "tell what a deploy would do, and do nothing"},
    {"no-restart", 0, RS_OPT_FLAG, AT(no_restart), NULL,
     "refuse what would restart replicas that serve (exit status 1)"},
    {"rollback", 0, RS_OPT_STRING, AT(rollback), "APP",
     "deploy the configuration of APP that ran before the present one"},
    {"to", 0, RS_OPT_INT, AT(to), "REVISION", "with --rollback: the one to go back to", .min = 1,
     .max = INT32_MAX},
    {"resume", 0, RS_OPT_STRING, AT(resume), "APP",
     "a rollout of APP that is paused goes on, one that is stopped is tried again"},
    {"abort", 0, RS_OPT_STRING, AT(abort), "APP",
     "a rollout of APP goes back to the version before it"},
    {"history", 0, RS_OPT_STRING, AT(history), "APP", "list the configurations of APP that ran"},
    {"json", 0, RS_OPT_FLAG, AT(json), NULL, "with --plan and --history: JSON"},
    {"if-match", 0, RS_OPT_STRING, AT(if_match), "ETAG",
     "only if the configuration there is still the one with this ETag (GET /api/v1/config)"},
    WAIT_OPTIONS(struct deploy_options),
    {"app-dir", 'd', RS_OPT_STRING, AT(source.app_dir), "DIR",
     "where modules are imported from, on the nodes (default: the folder of FILE)"},
    {"name", 0, RS_OPT_STRING, AT(source.name), "NAME",
     "name of the application (default: as in FILE, or default)"},
    {"route-prefix", 0, RS_OPT_STRING, AT(source.route_prefix), "PREFIX",
     "HTTP path below which it answers (default: as in FILE, or /)"},
    {NULL},
};

/* What of the options goes with what. */
static int check_options(const struct deploy_options *o, int n, struct rs_error *err)
{
    const char *only = o->rollback  ? "--rollback"
                       : o->history ? "--history"
                       : o->resume  ? "--resume"
                       : o->abort   ? "--abort"
                                    : NULL;

    if (!!o->rollback + !!o->history + !!o->resume + !!o->abort > 1)
        return rs_error_set(err, RS_INVALID,
                            "--rollback, --history, --resume and --abort exclude each other");
    if (only && (n > 0 || o->plan || o->add || o->no_restart))
        return rs_error_set(err, RS_INVALID,
                            "%s takes an application that is deployed, and nothing else to deploy",
                            only);
    if (!only && n == 0)
        return rs_error_set(err, RS_INVALID, "expected FILE or MODULE:APP to deploy, got nothing");
    if (o->to && !o->rollback)
        return rs_error_set(err, RS_INVALID, "--to goes with --rollback only");
    if (o->json && !o->plan && !o->history)
        return rs_error_set(err, RS_INVALID, "--json goes with --plan and --history only");
    return 0;
}

/* Waits, if wanted, for what was ordered. */
static int follow(struct watch *w, const struct deploy_options *o, struct rs_error *err)
{
    int r;

    if (o->no_wait) {
        if (!o->quiet)
            printf("deploying to %s; 'rserve status' tells what comes of it\n", w->remote.base);
        return 0;
    }
    r = watch(w, o->quiet, err);
    if (r == RS_EXIT_FAILED)
        rs_deploy_tell_way_back(&w->remote, w->doc, o->address);
    return r;
}

static int run_rollback(struct watch *w, const struct deploy_options *o, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *doc =
        json_pack("{s:[{s:s}]}", "applications", "name", o->rollback);
    int64_t revision = 0;

    if (rs_deploy_rollback(&w->remote, o->rollback, o->to, &revision, err) < 0)
        return -1;
    if (!o->quiet)
        printf("%s: back to revision %lld\n", o->rollback, (long long)revision);
    w->doc = doc;
    return follow(w, o, err);
}

static int run_roll(struct watch *w, const struct deploy_options *o, struct rs_error *err)
{
    const char *app = o->resume ? o->resume : o->abort;
    rs_auto(rs_json_decrefp) json_t *doc = json_pack("{s:[{s:s}]}", "applications", "name", app);
    int r;

    if (rs_deploy_roll(&w->remote, app, o->resume ? "resume" : "abort", err) < 0)
        return -1;
    if (!o->quiet)
        printf("%s: the rollout goes %s\n", app, o->resume ? "on" : "back");
    w->doc = doc;
    r = o->resume ? follow(w, o, err) : 0; /* called off, it stays DEPLOY_FAILED */
    return r;
}

/* With or without its quotes. */
static int expect_etag(struct rs_remote *remote, const char *etag, struct rs_error *err)
{
    size_t n = strlen(etag);
    bool quoted = n > 1 && etag[0] == '"' && etag[n - 1] == '"';

    if (n == 0 || n > 60 || etag[strcspn(etag, " \t\r\n,")])
        return rs_error_set(
            err, RS_INVALID,
            "--if-match: expected one ETag, as GET /api/v1/config tells, got '%.80s'", etag);
    snprintf(remote->if_match, sizeof(remote->if_match),
             quoted || strcmp(etag, "*") == 0 ? "%s" : "\"%s\"", etag);
    return 0;
}

static int plan(struct rs_remote *remote, const json_t *doc, const struct deploy_options *o,
                struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *all = json_deep_copy(doc);

    if (o->add && rs_deployed_keep_others(remote, all, err) < 0)
        return -1;
    return rs_deploy_plan(remote, all, o->json, o->no_restart, err);
}

static int run_deploy(int argc, char *argv[], struct rs_error *err)
{
    struct deploy_options o = {0};
    struct rs_config *config = NULL;
    rs_auto(rs_json_decrefp) json_t *doc = NULL;
    struct watch w = {0};
    int n = rs_verb_parse(&rs_verb_deploy, argc, argv, &o, err);
    int r;

    if (n < 0 || check_options(&o, n, err) < 0 || rs_remote_find(&w.remote, o.address, err) < 0)
        return -1;
    if (o.history)
        return rs_deploy_history(&w.remote, o.history, o.json, err);
    if (o.rollback)
        return run_rollback(&w, &o, err);
    if (o.resume || o.abort)
        return run_roll(&w, &o, err);
    o.source.quiet = o.quiet;
    o.source.strict = true;
    if (o.if_match && expect_etag(&w.remote, o.if_match, err) < 0)
        return -1;
    r = rs_app_source_load(&o.source, argv + 1, n, &config, err);
    if (r != 0) /* what was wrong with the file has been said */
        return r;
    doc = rs_app_source_document(config);
    rs_deployed_pin_app_dirs(doc, config);
    rs_config_free(config);
    w.doc = doc;
    if (o.plan)
        return plan(&w.remote, doc, &o, err);
    r = o.add          ? rs_deployed_add(&w.remote, doc, o.no_restart, err)
        : o.no_restart ? rs_remote_put_in_place(&w.remote, doc, err)
                       : rs_remote_put(&w.remote, doc, err);
    return r < 0 ? r : follow(&w, &o, err);
}

const struct rs_verb rs_verb_deploy = {
    .name = "deploy",
    .args = "[FILE|MODULE:APP [KEY=VALUE]...]",
    .summary = "deploy applications to what runs, and wait until they do",
    .details =
        "What runs there and is not named is deleted, unless --add is given. What did not\n"
        "change is left alone. Exit status 1: an application failed; the version before\n"
        "it goes on serving, and the command that goes back to it is told.\n"
        "\n"
        "--plan tells for each deployment whether it stays, changes in place, rolls, or goes, "
        "why, and whether there is room. Each application's last 10 configurations that ran "
        "are kept: --history lists them, --rollback deploys one again.",
    .min_args = 0,
    .max_args = -1,
    .options = deploy_options,
    .run = run_deploy,
    .file_args = true,
};

/* --- delete -------------------------------------------------------------------------------------- */

struct delete_options {
    const char *address;
    bool all, no_wait, quiet;
};

static const struct rs_option delete_options[] = {
    ADDRESS_OPTION(struct delete_options),
    {"all", 0, RS_OPT_FLAG, offsetof(struct delete_options, all), NULL, "every application"},
    WAIT_OPTIONS(struct delete_options),
    {NULL},
};

static int run_delete(int argc, char *argv[], struct rs_error *err)
{
    struct delete_options o = {0};
    struct watch w = {0};
    int n = rs_verb_parse(&rs_verb_delete, argc, argv, &o, err);
    int r;

    if (n < 0 || rs_remote_find(&w.remote, o.address, err) < 0)
        return -1;
    if (o.all == (n == 1))
        return rs_error_set(err, RS_INVALID, "expected the name of an application, or --all");
    w.absent = o.all ? "" : argv[1];
    r = o.all ? rs_remote_delete(&w.remote, err) : rs_remote_delete_app(&w.remote, argv[1], err);
    return r < 0 || o.no_wait ? r : watch(&w, o.quiet, err);
}

const struct rs_verb rs_verb_delete = {
    .name = "delete",
    .args = "[APP]",
    .summary = "delete an application, or all",
    .details = "Requests under way are finished first, as graceful_shutdown_timeout_s allows.",
    .min_args = 0,
    .max_args = 1,
    .options = delete_options,
    .run = run_delete,
};
