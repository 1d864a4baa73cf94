/* What should run and be routed on one node: the payload of TARGET (head to node, whole, the highest
 * revision wins). The JSON members bear the names of the struct members; times end in _s, seconds.
 *
 * core/model holds the nouns that head and node, sched and net share; it may include core/base.
 *
 * Ownership: a target owns everything below it; rs_target_free releases it all.
 * Decoding:  strict about the types of the members below, members not listed are ignored, so that a
 *            head and a node of neighbouring versions understand each other.
 * Thread:    plain data, none of its own.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdint.h>

/* Another node that runs replicas of a deployment. */
struct rs_target_remote {
    char *node_id;
    char *address;     /* host:port of its peer listener */
    unsigned replicas; /* that run there now; 0 never appears */
    char *
        version; /* that they are of, where it is the one that the deployment's split tells apart, and
                        * then the node may come twice; NULL: any other */
};

/* One replica that is named: a process with this id is started once, and never again. */
struct rs_target_place {
    char *id;
    char *version;
    unsigned rank;
    bool end;     /* it is to be killed */
    char *group;  /* placement group that it is in */
    json_t *gang; /* its GangContext; {}: none */
};

struct rs_target_deployment {
    char *name;
    char *version;  /* heavy version: replicas of another one are replaced */
    json_t *config; /* the effective options: rs_deployment_conf_from_json reads it (object) */

    unsigned replicas;    /* wanted on this node */
    unsigned *ranks;      /* `replicas` ranks that are this node's to give to its replicas */
    unsigned world_size;  /* wanted on all nodes together */
    unsigned start_limit; /* start failures after which a version that never ran is given up */
    bool ingress;         /* it takes the application's HTTP requests */
    bool failed;          /* given up: start no more, answer UNAVAILABLE where nothing runs */

    json_t
        *core; /* an actor or workers for tasks, see controller-core.h; {}: a deployment of Serve */

    /* {"version", "weight"}: replicas of that version are counted apart from all others, and get this
     * share of the requests, 0 to 1 (absent: as they have slots); {}: all are alike */
    json_t *split;

    struct rs_target_remote *remotes;
    size_t n_remotes;
    /* Of a deployment whose replicas have placement groups: all that are to run here, `replicas` of
     * them not to be ended. */
    struct rs_target_place *places;
    size_t n_places;
};

struct rs_target_app {
    char *name;
    char *version;       /* build version: hash of all that its code depends on */
    char *route_prefix;  /* NULL: not on HTTP */
    char *docs_path;     /* NULL: none */
    char *ingress;       /* deployment */
    char *import_path;   /* NULL: the graph comes from the file */
    char *app_dir;       /* absolute; NULL: none */
    char *python;        /* interpreter; NULL: the node's default */
    json_t *args;        /* object */
    json_t *runtime_env; /* object */
    json_t *policy;      /* of its requests, see policy.h; {}: nothing */
    json_t *graph;       /* that takes its requests, see core/graph/plan.h; {}: none */
    char *zygote;        /* name of the application that shares its zygotes; NULL: its own */
    bool spawn;          /* Python replicas are fresh processes; false: forked by a zygote */
    char *start_reason;  /* why spawn; NULL */

    struct rs_target_deployment *deployments;
    size_t n_deployments;
};

/* Where nodes that wait for it open their HTTP listener. */
struct rs_target_http {
    char *host;
    int port;                 /* 0: no configuration came yet, or this node takes no requests */
    char *root_path;          /* "" or "/base" */
    double request_timeout_s; /* 0: none */
    double keep_alive_timeout_s;
    char *access_log; /* a file or "-"; NULL: none */
    bool access_log_json;
    json_t *front; /* ssl_*, proxy_protocol and trusted_proxies, as http_options have them */
};

struct rs_target {
    uint64_t revision;
    bool populated; /* at least one application was deployed since the head started */
    struct rs_target_http http;
    struct rs_target_app *apps;
    size_t n_apps;
    /* Versions that others are taking the place of: `replicas` of each are kept up as long as they stand
     * here. An application that is here has the code of that version and those of its deployments that
     * have replicas of it; it may be here more than once, and is routed by the one in `apps`. */
    struct rs_target_app *old;
    size_t n_old;
};

struct rs_target *rs_target_new(void);
void rs_target_free(struct rs_target *t);
RS_DEFINE_AUTO(struct rs_target *, rs_target_free);

json_t *rs_target_to_json(const struct rs_target *t); /* the caller's */
RS_MUST_CHECK int rs_target_from_json(struct rs_target **ret, const json_t *j,
                                      struct rs_error *err);

/* Borrowed; NULL: none of that name. */
const struct rs_target_app *rs_target_app(const struct rs_target *t, const char *name);
const struct rs_target_deployment *rs_target_deployment(const struct rs_target_app *app,
                                                        const char *name);

/* Of `old`; NULL: that version of it is not named there. */
const struct rs_target_app *rs_target_old(const struct rs_target *t, const char *app,
                                          const char *deployment, const char *version);

/* Builders: zeroed elements, pointers good until the next call on the same array. */
struct rs_target_app *rs_target_add_app(struct rs_target *t, const char *name);
struct rs_target_app *rs_target_add_old(struct rs_target *t, const char *name);
struct rs_target_deployment *rs_target_add_deployment(struct rs_target_app *app, const char *name);
struct rs_target_remote *rs_target_add_remote(struct rs_target_deployment *d, const char *node_id,
                                              const char *address, unsigned replicas);
struct rs_target_place *rs_target_add_place(struct rs_target_deployment *d, const char *id);
