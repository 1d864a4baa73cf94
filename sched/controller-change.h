/* What a configuration changes, deployment by deployment. It is decided here and nowhere else: a deploy
 * carries the decision out, a plan tells it, `no_restart` refuses by it.
 *
 * Part of the controller: the same rules as in controller.h.
 */
#pragma once

#include "sched/controller-internal.h"

/* Of the replicas of a deployment, the lightest first. */
#define RS_CT_STEPS(X)                                                                             \
    X(NONE, "unchanged")                                                                           \
    X(IN_PLACE, "in place") /* another number, other limits, RECONFIGURE: the processes stay */    \
    X(NEW, "new")                                                                                  \
    X(ROLLING, "rolling")   /* new replicas take the place of the old ones bit by bit */           \
    X(RECREATE, "recreate") /* new replicas, and nothing of the old ones serves meanwhile */       \
    X(REMOVED, "removed")
#define RS_X(name, text) RS_CHANGE_##name,
enum rs_ct_step { RS_CT_STEPS(RS_X) RS_CHANGE_COUNT };
#undef RS_X
const char *rs_ct_step_name(enum rs_ct_step step);

struct rs_ct_change {
    const char *name; /* borrowed from the graph, or from the deployment that goes */
    enum rs_ct_step step;
    struct rs_deployment_conf *conf; /* owned until it is carried out; NULL: it goes */
    char *heavy;                     /* owned; NULL: it goes */
    bool ingress;
    bool same;               /* its replicas stay */
    bool changed;            /* something of the configuration is another */
    bool code;               /* the code is why its replicas do not stay */
    bool again;              /* it was given up, or was going: it is tried anew */
    bool restored;           /* its number is that of an earlier head */
    unsigned before, wanted; /* replicas asked for, so far and from now on */
    unsigned live;           /* replicas of now that take requests or are about to */
};

/* Of an application whose graph is known. */
struct rs_ct_changes {
    struct rs_graph *graph;     /* owned */
    struct rs_ct_change *items; /* owned: those that go, then the graph's */
    size_t n;
};
void rs_ct_changes_fini(struct rs_ct_changes *c);

/* What is asked for: `conf` out of `config`, with the code's `version` and description (NULL: the file
 * alone describes it). Borrowed. */
struct rs_ct_wish {
    const struct rs_config *config;
    const struct rs_config_app *conf;
    const char *version;
    const json_t *described;
};

/* `app` NULL: there is none of that name. -1: the configuration and the code do not go together; why. */
RS_MUST_CHECK int rs_ct_decide(struct rs_ct_changes *ret, const struct rs_controller *c,
                               const struct rs_ct_app *app, const struct rs_ct_wish *wish,
                               struct rs_error *err);
/* That it goes. */
struct rs_ct_change rs_ct_change_removed(const struct rs_controller *c,
                                         const struct rs_ct_deployment *d);
/* Does it. Takes what the change owns. */
void rs_ct_carry_out(struct rs_ct_app *app, struct rs_ct_change *change, int64_t now);

/* Replicas that the change starts, and that it ends, as long as nothing fails. */
unsigned rs_ct_change_starts(const struct rs_ct_change *c);
unsigned rs_ct_change_stops(const struct rs_ct_change *c);
/* Replicas that serve are replaced by others. */
bool rs_ct_change_restarts(const struct rs_ct_change *c);
/* Why: [{"field", "old", "new", "asks"}], the heaviest first. `app` as it is before. New. */
json_t *rs_ct_change_fields(const struct rs_ct_app *app, const struct rs_ct_change *change,
                            const struct rs_config_app *conf);
/* The options that are the code's (import_path, args, ..) and differ from what runs. New. */
json_t *rs_ct_code_fields(const struct rs_ct_app *app, const struct rs_config_app *conf);

/* --- controller-deploy.c --- */

/* How an application gets where the configuration wants it. */
enum rs_ct_way {
    RS_WAY_REFUSED,   /* the configuration itself is wrong */
    RS_WAY_FILE,      /* the file describes all of it */
    RS_WAY_KNOWN,     /* the code is the one that runs, and its graph is known */
    RS_WAY_UNDER_WAY, /* the code is being built already */
    RS_WAY_BUILD,
};
enum rs_ct_way rs_ct_way(const struct rs_ct_app *app, const struct rs_config_app *conf);
/* The name that the next build of this code has. New. */
char *rs_ct_build_version(const struct rs_ct_app *app, uint64_t code, unsigned *attempt);
/* The node that builds; NULL: there is none. */
const struct rs_ct_node *rs_ct_builder(const struct rs_controller *c);
/* BUILD of this code. New. */
json_t *rs_ct_build_message(const struct rs_config_app *conf, const char *version);
/* The node need not answer that BUILD any more. */
void rs_ct_cancel_build(const struct rs_controller *c, const char *node_id, const char *app,
                        const char *version);
