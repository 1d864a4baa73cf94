/* Actors, tasks and placement groups: what Ray's core gives to applications.
 *
 * An actor is a deployment of one replica, the workers for tasks of one shape are a deployment
 * whose size follows what is asked of it. Both stand in applications of their own
 * ("ray:APP@VERSION"), which share the zygote of the application that made them and are neither in
 * the configuration nor in the details. So they are placed, started, watched and routed like
 * replicas.
 *
 * Ops of CORE (all have "op"; "error" and "kind", an exception class, answer what cannot be done):
 *   create_actor {actor_id, class_name, name?, namespace, lifetime?, get_if_exists?, max_restarts,
 *                 max_ongoing, options, strategy?, env, spec, meta, serve?}
 *                -> {actor_id, app, existing}
 *   get_actor    {name, namespace} -> {actor_id, app, class_name, meta, ..}
 *   actor_info   {actor_id} -> {actor_id, app, state, cause?, ..}
 *   spec         {actor_id} -> {spec}: the process of the actor asks what it is
 *   hold, release {actor_id}: this process has handles of it, or has none any more
 *   kill_actor   {actor_id, no_restart} -> {}
 *   exit_actor   {actor_id}: it ends itself on purpose -> {}
 *   pool         {key, options, strategy?, env, namespace} -> {app, deployment}: workers for tasks
 *   demand       {deployment, n}: so many tasks of this process wait or run
 *   pool_info    {deployment} -> {failed, error?}
 *   cancel_task  {deployment, task_id}: its worker ends
 *   list         {what: actors|nodes|groups|pools} -> {rows}
 *   resources    {} -> {total, available}
 *   create_group {group_id, bundles, strategy, name, lifetime?} -> {}
 *   remove_group {group_id}; group_info {group_id | name} -> {state, ..}
 *   waiting      {waiting}: answered by the node itself (rs_agent_waiting)
 * `env` names whose code it is: {"app"} of a process of the cluster, or {"python", "app_dir",
 * "runtime_env"} of a program from outside. `options` are those of ray_actor_options.
 *
 * Part of the controller: the same rules as in controller.h.
 */
#pragma once

#include "sched/controller-internal.h"

enum rs_ct_actor_state { RS_ACTOR_PENDING, RS_ACTOR_ALIVE, RS_ACTOR_RESTARTING, RS_ACTOR_DEAD };

struct rs_ct_actor {
    char *id, *name, *namespace_, *class_name; /* name NULL: none */
    char *spec;   /* what its process is to make; NULL once it is dead */
    json_t *meta; /* of handles: methods and so on; not looked into */
    char *owner;  /* client; NULL: nobody's (detached) */
    enum rs_ct_actor_state state;
    char *cause; /* of death; NULL */
    bool by_constructor;
    struct rs_ct_deployment *d; /* NULL once it is dead */
    char *app;
    int max_restarts; /* -1: without limit */
    unsigned restarts;
    struct rs_map holders; /* client -> (something) */
    bool held;             /* someone held it at some time */
    char *node_id;         /* where it was last seen */
    int pid;
    double started_at;
    int64_t ended_at;
};

struct rs_ct_pool {
    struct rs_ct_deployment *d;
    struct rs_map demands; /* client -> struct rs_ct_demand */
    unsigned total;        /* sum of them */
    int64_t shrink_at;     /* 0: no surplus */
    int64_t idle_since;    /* 0: in use */
    char *key;
};

struct rs_ct_demand {
    unsigned n;
};

struct rs_ct_bundle {
    struct rs_resources want, free;
    json_t *selector;        /* labels that its node has; NULL: any */
    struct rs_ct_node *node; /* NULL: not placed */
};

enum rs_ct_strategy {
    RS_GROUP_PACK,
    RS_GROUP_SPREAD,
    RS_GROUP_STRICT_PACK,
    RS_GROUP_STRICT_SPREAD
};

struct rs_ct_group {
    char *id, *name, *owner; /* owner NULL: detached */
    enum rs_ct_strategy strategy;
    struct rs_ct_bundle *bundles;
    size_t n_bundles;
    bool placed;
    bool of_replicas; /* of a unit of a deployment: it comes and goes with that */
    char *why;        /* not placed: why; NULL */
};

/* controller-core.c */
void rs_ct_core_fini(struct rs_controller *c);
void rs_ct_core_node_left(struct rs_controller *c, const struct rs_ct_node *n, int64_t now);
/* Before and after placing: what the reports say, and how many workers are wanted. */
void rs_ct_core_update(struct rs_controller *c, int64_t now);
int64_t rs_ct_core_deadline(const struct rs_controller *c);
/* A deployment of an internal application; -1: the options make no sense. */
RS_MUST_CHECK int rs_ct_core_deployment(struct rs_controller *c, const json_t *msg,
                                        const char *name, json_t *config, json_t *core,
                                        struct rs_ct_deployment **ret, struct rs_error *err);
/* `key`, told apart where another application has workers of that name. The caller's. */
char *rs_ct_core_name(struct rs_controller *c, const json_t *msg, const char *key);
void rs_ct_core_deployment_gone(struct rs_ct_deployment *d);
RS_PRINTF(2, 3) json_t *rs_ct_core_refuse(const char *kind, const char *fmt, ...);

/* controller-core-actor.c */
json_t *rs_ct_actor_op(struct rs_controller *c, const char *client, const char *op,
                       const json_t *msg, int64_t now);
void rs_ct_actors_update(struct rs_controller *c, int64_t now);
void rs_ct_actors_client_gone(struct rs_controller *c, const char *client, int64_t now);
void rs_ct_actors_node_left(struct rs_controller *c, const struct rs_ct_node *n, int64_t now);
/* The placement group is removed: actors in it end. */
void rs_ct_actors_group_gone(struct rs_controller *c, const char *group, int64_t now);
void rs_ct_actor_free(struct rs_ct_actor *a);
const char *rs_ct_actor_state_name(enum rs_ct_actor_state s); /* Ray's */

/* controller-core-pool.c */
json_t *rs_ct_pool_op(struct rs_controller *c, const char *client, const char *op,
                      const json_t *msg, int64_t now);
void rs_ct_pools_update(struct rs_controller *c, int64_t now);
/* Something else waits for room: workers that have nothing to do go at once. True: some do. */
bool rs_ct_pools_yield(struct rs_controller *c);
void rs_ct_pools_client_gone(struct rs_controller *c, const char *client, int64_t now);
void rs_ct_pool_free(struct rs_ct_pool *p);
int64_t rs_ct_pools_deadline(const struct rs_controller *c);

/* controller-core-group.c */
json_t *rs_ct_group_op(struct rs_controller *c, const char *client, const char *op,
                       const json_t *msg, int64_t now);
void rs_ct_groups_client_gone(struct rs_controller *c, const char *client, int64_t now);
void rs_ct_groups_node_left(struct rs_controller *c, const struct rs_ct_node *n);
/* Actors that live in it die, tasks lose their place; then it is freed. */
void rs_ct_group_drop(struct rs_controller *c, struct rs_ct_group *g, int64_t now);
/* "PACK"; an unknown name is an error. */
RS_MUST_CHECK int rs_ct_group_strategy(struct rs_ct_group *g, const char *name,
                                       struct rs_error *err);
void rs_ct_group_free(struct rs_ct_group *g);
struct rs_ct_group *rs_ct_group_find(const struct rs_controller *c, const char *id);
const char *rs_ct_strategy_name(enum rs_ct_strategy s);

/* controller-core-view.c */
json_t *rs_ct_list_op(struct rs_controller *c, const json_t *msg, int64_t now);
json_t *rs_ct_resources_op(struct rs_controller *c);
json_t *rs_ct_actor_row(const struct rs_controller *c, const struct rs_ct_actor *a);
json_t *rs_ct_group_row(const struct rs_ct_group *g);
