/* rserve head and rserve worker: the same parts as `run`, as separate processes over TCP. */
#include "cmd/serve.h"
#include "cmd/verb.h"
#include "core/config/config.h"

#include <stdio.h>
#include <string.h>

/* --- head ---------------------------------------------------------------------------------------- */

struct head_options {
    struct rs_serve_options serve;
    const char *join, *peer, *name;
    bool forget;
};

static const struct rs_option head_options[] = {
    {"listen", 0, RS_OPT_STRING, offsetof(struct head_options, join), "HOST:PORT",
     "where workers join (default 127.0.0.1:6379); port 0: a free one"},
    {"peer-listen", 0, RS_OPT_STRING, offsetof(struct head_options, peer), "HOST:PORT",
     "where other nodes send requests to this one (default 127.0.0.1, a free port)"},
    {"node-name", 0, RS_OPT_STRING, offsetof(struct head_options, name), "NAME",
     "name of this node (default: the host's)"},
    {"forget", 0, RS_OPT_FLAG, offsetof(struct head_options, forget), NULL,
     "begin without the applications that an earlier head had"},
    RS_SERVE_HTTP_OPTIONS(struct head_options, serve),
    RS_SERVE_HEAD_OPTIONS(struct head_options, serve),
    RS_SERVE_NODE_OPTIONS(struct head_options, serve),
    {NULL},
};

static int cmd_head(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_head = {
    .name = "head",
    .args = "[FILE]",
    .summary = "run the control plane of a cluster, and a node of it",
    .details = "Workers join at --listen. Applications come from FILE or over the REST API "
               "(PUT /api/serve/applications/). It keeps them in --state-dir: started anew it\n"
               "has them again, and takes over what still runs on workers. FILE goes over them.\n"
               "What decides is a child process: when it dies it is started again, and clients do "
               "not notice.\n"
               "Links between nodes are not encrypted yet: keep them on addresses that only "
               "trusted machines reach.",
    .min_args = 0,
    .max_args = 1,
    .options = head_options,
    .run = cmd_head,
    .file_args = true,
};

static int cmd_head(int argc, char *argv[], struct rs_error *err)
{
    struct head_options o = {
        .serve = RS_SERVE_DEFAULTS, .join = "127.0.0.1:6379", .peer = "127.0.0.1:0"};
    struct rs_config *config = NULL;
    struct rs_diags diags = {0};
    struct rs_buf text = {0};
    int n = rs_verb_parse(&rs_verb_head, argc, argv, &o, err);
    int r = 0;

    if (n < 0)
        return -1;
    if (n == 1) {
        r = rs_config_load(&config, argv[1], &diags);
        rs_diags_print(&text, &diags);
        fputs(rs_buf_text(&text), stderr);
        rs_buf_fini(&text);
        rs_diags_fini(&diags);
        if (r < 0)
            r = RS_EXIT_USAGE;
    }
    if (r == 0)
        r = rs_serve(&(struct rs_serve_conf){.kind = "head",
                                             .options = &o.serve,
                                             .config = config,
                                             .join = o.join,
                                             .peer = o.peer,
                                             .name = o.name,
                                             .keep = true,
                                             .forget = o.forget,
                                             .http = true},
                     err);
    rs_options_fini(head_options, &o);
    return r;
}

/* --- worker -------------------------------------------------------------------------------------- */

struct worker_options {
    struct rs_serve_options serve;
    const char *address, *peer, *name;
    bool no_http;
};

static const struct rs_option worker_options[] = {
    {"address", 'a', RS_OPT_STRING, offsetof(struct worker_options, address), "HOST:PORT",
     "the head to join (required); HOST may be a name"},
    {"peer-listen", 0, RS_OPT_STRING, offsetof(struct worker_options, peer), "HOST:PORT",
     "where other nodes send requests to this one (default 127.0.0.1, a free port)"},
    {"node-name", 0, RS_OPT_STRING, offsetof(struct worker_options, name), "NAME",
     "name of this node (default: the host's)"},
    {"no-http", 0, RS_OPT_FLAG, offsetof(struct worker_options, no_http), NULL,
     "take no HTTP requests on this node"},
    RS_SERVE_HTTP_OPTIONS(struct worker_options, serve),
    RS_SERVE_NODE_OPTIONS(struct worker_options, serve),
    {NULL},
};

static int cmd_worker(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_worker = {
    .name = "worker",
    .args = "",
    .summary = "run a node that joins a head",
    .details = "A worker goes on serving while the head is away, and joins again when it is back.",
    .min_args = 0,
    .max_args = 0,
    .options = worker_options,
    .run = cmd_worker,
};

static int cmd_worker(int argc, char *argv[], struct rs_error *err)
{
    struct worker_options o = {.serve = RS_SERVE_DEFAULTS, .peer = "127.0.0.1:0"};
    int r = rs_verb_parse(&rs_verb_worker, argc, argv, &o, err);

    if (r < 0)
        return -1;
    if (!o.address)
        r = rs_error_set(err, RS_INVALID, "expected --address HOST:PORT of the head to join");
    else
        r = rs_serve(&(struct rs_serve_conf){.kind = "worker",
                                             .options = &o.serve,
                                             .head = o.address,
                                             .peer = o.peer,
                                             .name = o.name,
                                             .http = !o.no_http},
                     err);
    rs_options_fini(worker_options, &o);
    return r;
}
