/* What the files of the controller share: controller.c (inputs), controller-deploy.c (configuration
 * and graphs -> what is wanted), controller-change.c (what that changes), controller-plan.c (the same, only told), controller-place.c (where), controller-target.c (what each node is
 * told), controller-observe.c (reports -> statuses), controller-desired.c (what outlives it), controller-scale.c (how many), controller-view.c
 * (what people are told).
 */
#pragma once

#include "core/base/map.h"
#include "core/config/deployment.h"
#include "core/events/minutes.h"
#include "core/graph/graph.h"
#include "core/resource/resources.h"
#include "sched/autoscale.h"
#include "sched/controller.h"
#include "sched/forecast.h"
#include "sched/history.h"
#include "sched/place.h"
#include "sched/rollout.h"
#include "sched/schedule.h"
#include "sched/status.h"

struct rs_ct_node {
    char *id, *name, *version, *address; /* address NULL: none */
    struct rs_resources total;
    json_t *labels;
    struct rs_report *report; /* NULL: none yet */
    int64_t reported_at;
    char *sent;           /* what of the TARGET that it was sent last is its own; NULL: none was */
    uint64_t sent_common; /* the rest of it: common_serial */
    uint64_t serial;      /* of its joining: nobody else has it */
    size_t at;       /* its place among the nodes, for arrays that go by it; set by rs_ct_look */
    size_t on_board; /* the same on the board of the last placing */
    uint64_t sent_revision;
    bool draining;
    struct rs_resources spare; /* that nothing is placed on, after the last placing */
};

/* A place for one replica. */
struct rs_ct_slot {
    struct rs_ct_node *node;
    unsigned rank;
};

enum rs_ct_unit_state {
    RS_UNIT_ACTIVE,
    RS_UNIT_LEAVING, /* its replicas finish what they are at */
    RS_UNIT_BROKEN,  /* a member is lost: the others are killed */
};

struct rs_ct_member {
    char *id; /* of the one process that is ever started for it */
    unsigned rank;
    bool up;    /* it takes requests, by the last report */
    bool there; /* its process is not gone, by the last report */
    bool lost;  /* it was started and is no more */
};

/* Replicas that have one placement group, and start and end together: a gang, or one replica with
 * bundles. */
struct rs_ct_unit {
    struct rs_ct_deployment *of;
    char *group; /* id */
    char *version;
    enum rs_ct_unit_state state;
    struct rs_resources each; /* what a member takes out of its first bundle */
    struct rs_ct_member *members;
    size_t n;
    size_t bundles; /* of one member */
    json_t *gang;   /* what its members are told, but their rank; {}: it is no gang */
};

/* Lower bounds by the clock; see controller-scale-ahead.c. */
struct rs_ct_ahead {
    json_t *list;                     /* that `schedule` was made from */
    struct rs_schedule *schedule;     /* NULL: none */
    struct rs_schedule_now scheduled; /* as of looked_at */
    int64_t looked_at;                /* seconds since the epoch */
    char *trouble;                    /* why the schedule is not followed; NULL */
    struct rs_forecast forecast;
    struct rs_forecast_now expected;
    int predicted;    /* replicas for that; 0: nothing is expected */
    char reason[200]; /* of the lower bound, if it is one of these; "" */
};

/* What the nodes say of a deployment, added up. */
struct rs_ct_seen {
    unsigned running, updating, starting, stopping; /* of the wanted version; stopping: of any */
    unsigned old_live;                              /* of other versions, live */
    unsigned start_failures, failures_total, deaths;
    bool ever_ran;
    bool fresh; /* every node has reported on the last target that it was sent */
    unsigned queued, in_flight;
    uint64_t router_fallbacks, dropped_full, dropped_shed, dropped_expired;
    const char *last_error, *blocked, *router; /* borrowed from the reports */
};

struct rs_ct_deployment {
    struct rs_ct_app *app;
    char *name;
    struct rs_deployment_conf *conf;
    char *heavy;      /* hash of all that asks for new replicas */
    unsigned attempt; /* given up so often with the same hash */
    char *version;    /* heavy, and the attempt */
    bool ingress;
    bool gone; /* no longer wanted: forgotten when nothing of it runs */

    /* See controller-roll.h. */
    struct rs_rollout roll;
    struct rs_ct_canary *canary;   /* of this version while it rolls; NULL: nobody judges it */
    double canary_share;           /* percent that may be new, as a canary says; 0: there is none */
    char *roll_text;               /* why it was called off, in words; NULL */
    json_t *code;                  /* of this version: facts about the application */
    struct rs_ct_deployment **old; /* versions that it takes the place of, the oldest first */
    size_t n_old;
    struct rs_ct_deployment
        *next;      /* of one of those: what takes its place; NULL: the wanted version */
    unsigned run;   /* while versions roll: how many replicas of this one */
    bool feasible;  /* the next one would find room if old ones were not there */
    bool roll_kept; /* the roll is one that an earlier head began */
    /* A node that ran some of it hung up, and may be back with it until then; 0: none. */
    int64_t away_until;

    /* Actors and workers for tasks only (controller-core.h). */
    json_t *core;        /* what its processes are told; NULL: a deployment of Serve */
    json_t *raw;         /* the options that were given; conf->json has all of them */
    size_t options_size; /* bytes of both as text */
    char *pinned;        /* node_id it wants to be on; NULL: any */
    bool pinned_soft;    /* another one will do */
    char *group;         /* placement group whose room it takes; NULL */
    int bundle;          /* of that; -1: any */

    unsigned wanted;
    struct rs_autoscale scale; /* not started: the number is fixed */
    struct rs_ct_ahead ahead;
    double policy_wants; /* what the user's policy said last; < 0: nothing */
    char *policy_error;  /* why it said nothing; NULL */
    double asked_load;   /* that it was told of */
    json_t *stats;       /* [[time, replica id, values], ..] for it; NULL: none */
    struct rs_ct_slot *slots;
    size_t n_slots, cap_slots;
    bool has_holes; /* a slot was given up: ranks are closed up when its replica is leaving */
    char *blocked;  /* why some are not placed; NULL */
    struct rs_ct_unit **units; /* of replicas that have placement groups; slots follow from them */
    size_t n_units, cap_units;
    unsigned unit_serial;

    /* What rs_ct_look added up last, and for which reports and version. */
    struct rs_ct_seen look;
    uint64_t look_facts;
    char look_version[64];
    unsigned *up_on; /* replicas that take requests, by rs_ct_node.at */
    size_t cap_up_on;
    struct rs_ct_by_node *by_node; /* while targets are made; NULL */

    struct rs_status status;
    char *message;
    bool failed;  /* given up */
    char *notice; /* what it waits for, shown while there is no message; NULL */
    unsigned seen_failures, seen_deaths;
    json_t *chosen; /* replicas that were chosen to go lately, see controller-notes.c; NULL: none */
    struct rs_minutes refused; /* its requests, by cause */
    int64_t waiting_since;     /* since when not every replica is up; 0: all are */
    bool slow;                 /* for longer than 30 s */
};

enum rs_ct_build { RS_BUILD_NONE, RS_BUILD_WANTED, RS_BUILD_RUNNING, RS_BUILD_DONE };

/* The conversation with the user's autoscaling policies of an application. */
struct rs_ct_policy {
    char *node_id; /* beside which they run; NULL: none yet */
    bool asked;    /* an answer is owed */
    bool answered; /* it ever answered */
    bool down;     /* no answer in time: the built-in policy decides */
    uint64_t question;
    int64_t asked_at, next_at;
    char *trouble; /* NULL: all is well */
};

struct rs_ct_app {
    struct rs_controller *controller;
    char *name;
    const struct rs_config_app *conf; /* in `own` or controller->config; NULL: being deleted */
    struct rs_config *own; /* of an application that a program deployed; NULL: of the file's */
    json_t *echo;          /* deployed_app_config */
    double deployed_at;
    bool deleting;
    char *who;           /* ordered it last; NULL: not known */
    int64_t rollback_of; /* revision that this is again; 0: none */
    bool noted;          /* that this configuration runs is in the history */

    enum rs_ct_build build;
    uint64_t code;       /* hash of the code that `build` is about */
    unsigned attempt;    /* builds with the same hash */
    char *build_version; /* of the build wanted or running; NULL: none */
    char *builder;       /* node_id; NULL: none */
    int64_t build_at;    /* when it was asked to, or began to wait for one */
    char *failure;       /* of the last build or merge: the application is DEPLOY_FAILED; NULL */

    /* What is deployed; live false: nothing yet. */
    bool live;
    uint64_t live_code;
    json_t *live_options; /* what that is the hash of; NULL: nothing yet */
    json_t *described;    /* the GRAPH; NULL: from the file */
    struct rs_graph *graph;
    char *route_wanted;   /* as it is deployed; route_prefix follows (controller-routes.c) */
    char *route_trouble;  /* why it does not yet; NULL */
    bool route_taken;     /* and will not, as things are */
    bool held;            /* it is being deleted, and serves until another one has its route */
    uint64_t unrouted_at; /* revision of the last TARGET with its route; 0: it has it */
    char *version, *route_prefix, *docs_path, *import_path, *app_dir, *python, *start_reason;
    json_t *args, *runtime_env, *ingress_policy;
    json_t *declared; /* graph of the file, in full; NULL: none */
    bool spawn;

    bool internal; /* of actors and tasks */
    char *zygote;  /* application whose zygote it shares; NULL: its own */

    enum rs_app_status status;
    char *message;
    struct rs_minutes refused; /* HTTP requests, by cause */
    struct rs_ct_policy policy;
    struct rs_map deployments; /* name -> struct rs_ct_deployment */
};

/* See controller-core.h. */
struct rs_ct_core {
    struct rs_map apps;   /* name -> struct rs_ct_app, all internal */
    struct rs_map actors; /* id -> struct rs_ct_actor; the dead ones too, for a while */
    struct rs_map names;  /* namespace and name -> struct rs_ct_actor that lives */
    struct rs_map pools;  /* key -> struct rs_ct_pool */
    struct rs_map groups; /* id -> struct rs_ct_group */
    unsigned serial;
    struct rs_resources available; /* on all nodes, after the last placing */
};

struct rs_controller {
    struct rs_ct_core core;
    struct rs_controller_ops ops;
    void *arg;
    double wall_offset_s;
    char *node_id, *node_ip, *log_file;
    struct rs_config *config;     /* the last one applied; NULL: none */
    struct rs_config *started;    /* the first one: http_options and so on hold until the end */
    struct rs_ct_lost_node *lost; /* the last ones, RS_CT_LOST_MAX; NULL: none was */
    size_t n_lost;
    struct rs_map nodes; /* id -> struct rs_ct_node, in the order in which they came */
    struct rs_map apps;  /* name -> struct rs_ct_app */
    uint64_t facts;      /* counts the changes of what is known of nodes */
    int64_t update_at;   /* a round is due then; 0: none */
    int64_t updated_at;
    char *common; /* what all nodes were told last; NULL: nothing */
    uint64_t common_serial, node_serial;
    uint64_t revision;
    bool populated;
    json_t *kept_rolls; /* {app: {deployment: ..}} of an earlier head; NULL: none */
    json_t *restored;   /* {app: {deployment: count}} that deployments start with; NULL: none */
    struct rs_history history;
    struct rs_ct_plan **plans; /* controller-plan.c */
    size_t n_plans;
    uint64_t plan_serial;
    uint64_t forecasts_revision;
    json_t *forecasts;   /* {app: {deployment: ..}} that deployments start with; NULL: none */
    uint64_t questions;  /* put to policies so far */
    bool capacity_rises; /* target_capacity was raised last, or is there from the start */
    int64_t now;         /* of the last input */
    char *who;           /* gave the order that is being followed; NULL: nobody did */
    int64_t started_at;
    uint64_t rounds;
};

/* Of Serve, then of actors and tasks. NULL: a hole. */
static inline size_t rs_ct_all_slots(const struct rs_controller *c)
{
    return rs_map_slots(&c->apps) + rs_map_slots(&c->core.apps);
}
static inline struct rs_ct_app *rs_ct_all_at(const struct rs_controller *c, size_t i)
{
    size_t n = rs_map_slots(&c->apps);

    return i < n ? rs_map_at(&c->apps, i, NULL) : rs_map_at(&c->core.apps, i - n, NULL);
}

/* controller.c */
void rs_ct_set(char **text, char *value); /* takes `value` */
double rs_ct_wall(const struct rs_controller *c, int64_t now);
/* After every input: places, tells the nodes, derives statuses, forgets what is gone. */
void rs_ct_update(struct rs_controller *c, int64_t now);
/* A node told something: a round follows, at once or, in a large cluster, together with others. */
void rs_ct_update_soon(struct rs_controller *c, int64_t now);
void rs_ct_emit(struct rs_controller *c, const struct rs_controller_event *e);

/* controller-change.c */
/* Another version begins: its counters do. */
void rs_ct_version_begins(struct rs_ct_deployment *d);

/* controller-deploy.c */
void rs_ct_app_free(struct rs_ct_app *app);
void rs_ct_deployment_free(struct rs_ct_deployment *d);
/* Follows app->conf: builds it, or deploys it when its code is built already. */
void rs_ct_app_follow(struct rs_ct_app *app, int64_t now);
/* The graph is known: merges and sets what is wanted. NULL: the file alone describes it. */
void rs_ct_app_deploy(struct rs_ct_app *app, const json_t *described, int64_t now);
void rs_ct_app_failed(struct rs_ct_app *app, char *message); /* takes it */
void rs_ct_app_delete(struct rs_ct_app *app);
/* It was deleted, and serves no longer. */
void rs_ct_app_release(struct rs_ct_app *app);
/* It is no longer wanted: it is forgotten when nothing of it runs. */
void rs_ct_deployment_gone(struct rs_ct_deployment *d);
/* What the application says of FAILED. New. */
char *rs_ct_build_error(const char *app, const json_t *failed);
/* Sends BUILDs that wait for a node. */
void rs_ct_send_builds(struct rs_controller *c);

/* controller-routes.c */
/* Routes change hands, all at once that may. Before the nodes are told. */
void rs_ct_routes_update(struct rs_controller *c);

/* controller-desired.c */
/* The application runs as it is configured: its history knows. */
void rs_ct_note_running(struct rs_ct_app *app);
/* The number that it had under an earlier head; false: not known, or made use of. */
bool rs_ct_restored(const struct rs_controller *c, const char *app, const char *deployment,
                    unsigned *ret);
void rs_ct_restored_used(struct rs_controller *c, const char *app, const char *deployment);

/* controller-place.c */
void rs_ct_place(struct rs_controller *c);
/* Some deployment or placement group could not be placed. */
bool rs_ct_short_of_room(const struct rs_controller *c);
/* Processes of `d` on the node that lent their CPUs, by its last report. */
unsigned rs_ct_waiting_on(const struct rs_ct_node *n, const struct rs_ct_deployment *d);

/* controller-unit.c */
/* The node of a member; NULL: it is gone. */
struct rs_ct_node *rs_ct_unit_node(const struct rs_controller *c, const struct rs_ct_unit *u,
                                   size_t member);
void rs_ct_units_free(struct rs_ct_deployment *d);

/* controller-target.c */
void rs_ct_send_targets(struct rs_controller *c, int64_t now);

/* controller-scale.c */
/* The number a deployment has with `conf`, before the autoscaler says another. `d` NULL: it is new;
 * `changed`: its configuration did. */
unsigned rs_ct_wanted(const struct rs_ct_deployment *d, const struct rs_controller *c,
                      const struct rs_deployment_conf *conf, bool changed);
/* The number of a new deployment that had `before` under an earlier head. */
unsigned rs_ct_wanted_again(const struct rs_controller *c, const struct rs_config_app *app,
                            const struct rs_deployment_conf *conf, unsigned before);
/* Another configuration is about to be followed; `before` NULL: it is the first. */
void rs_ct_capacity(struct rs_controller *c, const struct rs_config *before,
                    const struct rs_config *after);
/* A node reports again; `since`: when it did last. */
void rs_ct_scale_report(struct rs_controller *c, const struct rs_report *before,
                        const struct rs_report *after, int64_t since, int64_t now);
bool rs_ct_scale(struct rs_controller *c, int64_t now); /* true: some number is another one now */
int64_t rs_ct_scale_deadline(const struct rs_ct_deployment *d);
json_t *rs_ct_scale_json(const struct rs_ct_deployment *d); /* autoscaling_detail; null: none */
json_t *rs_ct_scale_why(const struct rs_ct_deployment *d);
bool rs_ct_scales(const struct rs_ct_deployment *d); /* the autoscaler has a say */

/* The same as data: the inputs, the steps of the formula, the delay; null: it does not scale. New. */
json_t *rs_ct_scale_inputs(const struct rs_ct_deployment *d);

/* controller-scale-ahead.c */
void rs_ct_ahead_fini(struct rs_ct_ahead *a);
/* `lower`, or what the schedule says in its place, or what the expected load needs above that. */
int rs_ct_ahead_lower(struct rs_ct_deployment *d, int lower, bool rises, int64_t now);
/* By the schedule alone, for a number that a configuration begins with. */
int rs_ct_ahead_first(const struct rs_controller *c, const struct rs_deployment_conf *conf,
                      int lower);
void rs_ct_ahead_tell(struct rs_ct_deployment *d, int64_t now); /* the load that is there */
int64_t rs_ct_ahead_deadline(const struct rs_ct_deployment *d);
void rs_ct_ahead_restore(struct rs_ct_deployment *d); /* it is new: what an earlier head knew */
json_t *rs_ct_ahead_schedule_json(const struct rs_ct_deployment *d); /* null: no entry in force */
json_t *
rs_ct_ahead_expected_json(const struct rs_ct_deployment *d); /* null: nothing is predicted */

/* controller-scale-policy.c */
bool rs_ct_has_policy(const struct rs_ct_deployment *d); /* another than the built-in one */
const char *rs_ct_policy_name(const struct rs_ct_deployment *d);
/* Asks those that are due. After the targets: a node knows what it is asked about. True: it is worth
 * deciding again. */
bool rs_ct_policies_tick(struct rs_controller *c, int64_t now);
int64_t rs_ct_policy_deadline(const struct rs_ct_deployment *d);
/* A node told what its replicas say of themselves; `before` may be NULL. */
void rs_ct_policy_stats(struct rs_ct_deployment *d, const struct rs_report *before,
                        const struct rs_report *after, double wall);
void rs_ct_policy_free(struct rs_ct_app *app);
/* Those beside that node are asked beside another one. */
void rs_ct_policy_node_left(struct rs_controller *c, const char *node_id, int64_t now);

/* controller-notes.c */
/* A node reports again: what was refused meanwhile. */
void rs_ct_count_refused(struct rs_controller *c, const struct rs_report *before,
                         const struct rs_report *after, int64_t now);
/* Its number goes down, and the replica at this slot was chosen to go. */
void rs_ct_note_chosen(struct rs_ct_deployment *d, const struct rs_ct_slot *slot);
/* The BUILD of an application begins, or has ended; `text` of a failure, else NULL. */
void rs_ct_note_build(struct rs_ct_app *app, const char *status, const char *text, int64_t now);

/* controller-observe.c */
struct rs_ct_seen rs_ct_look(const struct rs_controller *c, const struct rs_ct_deployment *d);
/* Replicas of it that take requests on the node, by the last report. */
unsigned rs_ct_up_on(const struct rs_controller *c, const struct rs_ct_deployment *d,
                     const struct rs_ct_node *n);
unsigned rs_ct_start_limit(const struct rs_ct_deployment *d);
/* Deaths of a new version that stop its roll. */
unsigned rs_ct_roll_death_limit(const struct rs_ct_deployment *d);
void rs_ct_observe(struct rs_controller *c, int64_t now);
void rs_ct_event(struct rs_ct_deployment *d, enum rs_status_event event, char *message);
/* controller-lost.c */
#define RS_CT_LOST_MAX 10
struct rs_ct_lost_node;
/* "nothing was heard of it for 10.2 s, limit 10 s". New; `why` may be NULL. */
char *rs_ct_loss_text(const struct rs_ct_node *n, const struct rs_controller_loss *why);
/* Keeps it in mind, and tells. */
void rs_ct_lost(struct rs_controller *c, const struct rs_ct_node *n,
                const struct rs_controller_loss *why, int64_t now);
void rs_ct_lost_free(struct rs_controller *c);
json_t *rs_ct_lost_json(const struct rs_controller *c); /* array, new */
/* null: it is well. New. */
json_t *rs_ct_node_health(const struct rs_controller *c, const struct rs_ct_node *n, int64_t now);

/* controller-health.c */
/* Events of how replicas do, from two reports of a node; either may be NULL. */
void rs_ct_health_events(struct rs_controller *c, const struct rs_ct_node *node,
                         const struct rs_report *before, const struct rs_report *after);

/* Events for replicas that differ between two reports of a node; either may be NULL, and `cause`. */
void rs_ct_replica_events(struct rs_controller *c, const struct rs_ct_node *node,
                          const struct rs_report *before, const struct rs_report *after,
                          const char *cause);
