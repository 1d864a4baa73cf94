/* Merging, and the effective options as a struct. merge() is the order of precedence; what follows
 * from the options (argv, absolute paths, capacity) is computed where the struct is built, so that a
 * node that gets the JSON sees the same.
 */
#include "core/config/deployment.h"

#include "core/base/alloc.h"
#include "core/config/fields_foresight.h"
#include "core/config/fields_rollout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The top-level key travels with the options, since it changes what they mean. */
#define CAPACITY "target_capacity"
#define DEFAULT_POLICY "ray.serve.autoscaling_policy:default_autoscaling_policy"
#define SURGE_UNSAID 25 /* percent */

const char *rs_source_name(enum rs_source s)
{
    static const char *const names[] = {"default", "code", "application", "file"};

    return names[s];
}

int rs_target_capacity_apply(int n, double percent)
{
    int scaled;

    if (percent < 0)
        return n;
    if (n <= 0 || percent == 0)
        return 0;
    scaled = (int)floor((double)n * percent / 100 + 0.5);
    return scaled < 1 ? 1 : scaled;
}

/* --- merging ------------------------------------------------------------------------------------- */

struct merge {
    const struct rs_config *config;
    const struct rs_config_app *app;
    const json_t *file, *code; /* options by canonical name, or NULL */
    json_t *values, *sources;  /* the result */
};

static const json_t *given(const json_t *options, const char *key)
{
    const json_t *v = json_object_get(options, key);

    return json_is_null(v) ? NULL : v;
}

/* Takes `v`. */
static void set(struct merge *m, const char *key, json_t *v, enum rs_source source)
{
    json_object_set_new(m->values, key, v);
    json_object_set_new(m->sources, key, json_string(rs_source_name(source)));
}

static void set_copy(struct merge *m, const char *key, const json_t *v, enum rs_source source)
{
    set(m, key, json_deep_copy(v), source);
}

static void merge_plain(struct merge *m)
{
    for (size_t i = 0; i < rs_object_deployment.count; i++) {
        const struct rs_field *f = &rs_object_deployment.fields[i];
        const json_t *file = json_object_get(m->file, f->name);
        const json_t *code = json_object_get(m->code, f->name);

        if (f->alias_of || f->flags & RS_F_FORBIDDEN)
            continue;
        if (file)
            set_copy(m, f->name, file, RS_SOURCE_FILE);
        else if (code)
            set_copy(m, f->name, code, RS_SOURCE_CODE);
        else
            set(m, f->name, rs_field_default(f), RS_SOURCE_DEFAULT);
    }
}

static bool is_auto(const json_t *v)
{
    const char *text = json_string_value(v);

    return text && strcmp(text, "auto") == 0;
}

/* num_replicas: auto, with what else is given on top. A new object. */
static json_t *automatic(const json_t *on_top)
{
    json_t *conf = json_pack("{s:i, s:i, s:f}", "min_replicas", 1, "max_replicas", 100,
                             "target_ongoing_requests", 2.0);

    if (on_top)
        json_object_update(conf, (json_t *)(uintptr_t)on_top);
    return conf;
}

/* Exactly one of num_replicas and autoscaling_config is set in the end. */
static void merge_replicas(struct merge *m)
{
    const json_t *fr = given(m->file, "num_replicas"), *cr = given(m->code, "num_replicas");
    const json_t *fa = given(m->file, "autoscaling_config");
    const json_t *ca = given(m->code, "autoscaling_config");
    bool off = json_is_null(json_object_get(m->file, "autoscaling_config"));
    enum rs_source from = fr || fa || off ? RS_SOURCE_FILE : RS_SOURCE_CODE;
    json_t *scaling = NULL;

    if (is_auto(fr))
        scaling = automatic(fa ? fa : ca);
    else if (fa)
        scaling = json_deep_copy(fa);
    else if (!fr && !off && is_auto(cr))
        scaling = automatic(ca);
    else if (!fr && !off && ca)
        scaling = json_deep_copy(ca);
    if (scaling) {
        set(m, "autoscaling_config", scaling, from);
        set(m, "num_replicas", json_null(), from);
        return;
    }
    set(m, "autoscaling_config", json_null(), fr || off ? RS_SOURCE_FILE : RS_SOURCE_DEFAULT);
    if (json_is_integer(fr))
        set_copy(m, "num_replicas", fr, RS_SOURCE_FILE);
    else if (json_is_integer(cr))
        set_copy(m, "num_replicas", cr, RS_SOURCE_CODE);
    else
        set(m, "num_replicas", json_integer(1), RS_SOURCE_DEFAULT);
}

json_t *rs_runtime_env_merge(const json_t *app, const json_t *own)
{
    static const char *const tools[] = {"pip", "uv", "conda"};
    json_t *env = json_deep_copy(app);
    json_t *vars = json_deep_copy(json_object_get(app, "env_vars"));

    for (size_t i = 0; i < RS_COUNT(tools); i++)
        for (size_t k = 0; k < RS_COUNT(tools) && given(own, tools[i]); k++)
            json_object_del(env, tools[k]);
    json_object_update(env, (json_t *)(uintptr_t)own);
    if (json_is_object(vars) && json_is_object(json_object_get(own, "env_vars"))) {
        json_object_update(vars, json_object_get(own, "env_vars"));
        json_object_set(env, "env_vars", vars);
    }
    json_decref(vars);
    return env;
}

/* Relative paths start from the file, or for what the code says from the application's folder. */
static void merge_actor_options(struct merge *m, struct rs_walk *w)
{
    json_t *options = json_object_get(m->values, "ray_actor_options"), *env;
    rs_auto(rs_json_decrefp) json_t *own = json_deep_copy(json_object_get(options, "runtime_env"));
    const char *dir = given(m->file, "ray_actor_options") ? m->config->dir : m->app->app_dir;
    struct rs_error err = {0};

    if (own && rs_runtime_env_resolve(own, dir, &err) < 0)
        rs_walk_error(w, 0, 0, "ray_actor_options.runtime_env.%s", err.msg);
    env = rs_runtime_env_merge(m->app->runtime_env, own);
    if (!given(options, "num_cpus"))
        json_object_set_new(options, "num_cpus", json_real(1.0));
    if (json_object_size(env))
        json_object_set(options, "runtime_env", env);
    else
        json_object_del(options, "runtime_env");
    json_decref(env);
}

static void merge_logging(struct merge *m)
{
    if (!given(m->values, "logging_config") && m->app->logging_config)
        set_copy(m, "logging_config", m->app->logging_config, RS_SOURCE_APP);
}

/* The command as words, and paths relative to the file made absolute. */
static void merge_extension(struct merge *m)
{
    json_t *ext = json_object_get(m->values, "rserve");
    const json_t *command = given(ext, "command");
    const char *cwd = rs_json_str(ext, "cwd", NULL), *program;
    json_t *words = json_is_string(command) ? rs_command_split(json_string_value(command))
                                            : json_deep_copy(command);

    if (words) {
        json_object_set_new(ext, "command", words);
        program = json_string_value(json_array_get(words, 0));
        if (program && *program != '/' && strchr(program, '/')) {
            rs_auto(rs_freep) char *full = rs_config_path(m->config->dir, program);

            json_array_set_new(words, 0, json_string_nocheck(full));
        }
    }
    if (cwd) {
        rs_auto(rs_freep) char *full = rs_config_path(m->config->dir, cwd);

        json_object_set_new(ext, "cwd", json_string_nocheck(full));
    }
}

/* Options from code, checked by the same table; NULL with errors added. */
static json_t *decode_code(const json_t *code, const char *name, struct rs_walk *w)
{
    rs_auto(rs_arena_fini) struct rs_arena arena = {0};
    rs_auto(rs_json_decrefp) json_t *named = json_copy((json_t *)(uintptr_t)code);
    struct rs_error err = {0};
    const struct rs_node *node;
    const struct rs_node_entry *replicas;
    size_t errors = w->diags->errors;
    json_t *json;

    if (json_is_object(named))
        json_object_set_new(named, "name", json_string(name));
    node = rs_node_from_json(&arena, named, &err);
    if (!node || node->kind != RS_NODE_MAP) {
        rs_walk_error(w, 0, 0, "%s", node ? "expected a mapping of options" : err.msg);
        return NULL;
    }
    json = rs_decode(w, &rs_object_deployment, node);
    replicas = rs_node_get(node, "num_replicas");
    if (replicas && replicas->value->kind == RS_NODE_INT && given(json, "autoscaling_config"))
        rs_walk_error(w, 0, 0,
                      "Manually setting num_replicas is not allowed when autoscaling_config is "
                      "provided.");
    if (w->diags->errors == errors)
        return json;
    json_decref(json);
    return NULL;
}

static void walk_to(struct rs_walk *w, const struct rs_config_app *app, const char *name)
{
    rs_walk_back(w, 0);
    rs_walk_key(w, app->name);
    rs_walk_key(w, name);
}

static bool has_own_policy(const json_t *complete)
{
    const json_t *policy =
        json_object_get(json_object_get(complete, "autoscaling_config"), "policy");
    const char *name = rs_json_str(policy, "policy_function", DEFAULT_POLICY);

    return *name && strcmp(name, DEFAULT_POLICY) != 0;
}

int rs_deployment_merge(struct rs_deployment_conf **ret, const struct rs_config *c,
                        const struct rs_config_app *app, const char *name, const json_t *code,
                        struct rs_diags *diags)
{
    rs_auto(rs_json_decrefp) json_t *checked = NULL, *complete = NULL;
    const struct rs_config_deployment *d = rs_config_app_find(app, name);
    struct rs_walk w = {.diags = diags, .file = c->file, .deploy = 1, .code = true};
    struct merge m = {.config = c, .app = app, .file = d ? d->options : NULL};
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *conf = NULL;
    rs_auto(rs_json_decrefp) json_t *values = json_object(), *sources = json_object();
    size_t errors = diags->errors;
    struct rs_error err = {0};

    walk_to(&w, app, name);
    if (code) {
        w.file = "code";
        checked = decode_code(code, name, &w);
    }
    w.file = c->file;
    w.line = d ? d->line : 0;
    w.column = d ? d->column : 0;
    m.code = checked;
    m.values = values;
    m.sources = sources;
    merge_plain(&m);
    set(&m, "name", json_string(name), d ? RS_SOURCE_FILE : RS_SOURCE_CODE);
    merge_replicas(&m);
    merge_actor_options(&m, &w);
    merge_logging(&m);
    merge_extension(&m);
    complete = rs_complete(&rs_object_deployment, values);
    if (c->target_capacity >= 0)
        json_object_set_new(complete, CAPACITY, json_real(c->target_capacity));
    if (diags->errors == errors)
        rs_rules_deployment(&w, complete);
    if (app->external_scaler_enabled && given(complete, "autoscaling_config"))
        rs_walk_error(&w, 0, 0,
                      "external_scaler_enabled is set to True, but the following deployment(s) "
                      "have autoscaling configured: \"%.60s\"",
                      name);
    if (json_is_object(app->autoscaling_policy) && has_own_policy(complete))
        rs_walk_warn(&w, 0, 0,
                     "User provided both a deployment-level and an application-level policy for "
                     "deployment %.60s. The application-level policy will take precedence.",
                     name);
    rs_buf_fini(&w.path);
    if (diags->errors > errors)
        return -1;
    if (rs_deployment_conf_from_json(&conf, complete, &err) < 0) {
        const struct rs_diag_at at = {.file = c->file, .deploy_time = true};

        rs_diags_add(diags, RS_ERROR, &at, "%.60s.%.60s: %s", app->name, name, err.msg);
        return -1;
    }
    json_decref(conf->sources);
    conf->sources = rs_steal(sources);
    *ret = rs_steal(conf);
    return 0;
}

/* --- the struct ---------------------------------------------------------------------------------- */

static void fill_autoscaling(struct rs_deployment_conf *c, double capacity)
{
    const json_t *json = json_object_get(c->json, "autoscaling_config");
    struct rs_autoscaling_conf *a = &c->autoscaling;
    double both = rs_json_num(json, "smoothing_factor", 1.0);

    c->autoscaling_enabled = json_is_object(json);
    if (!c->autoscaling_enabled) {
        c->num_replicas = rs_target_capacity_apply(c->num_replicas, capacity);
        return;
    }
    a->aggregation_function = rs_json_str(json, "aggregation_function", "mean");
    json = json_object_get(json, "policy");
    a->policy_function = rs_json_str(json, "policy_function", "");
    a->policy_kwargs = json_object_get(json, "policy_kwargs");
    json = json_object_get(c->json, "autoscaling_config");
    if (a->target_ongoing_requests < 0)
        a->target_ongoing_requests = 2;
    if (a->upscaling_factor < 0)
        a->upscaling_factor = rs_json_num(json, "upscale_smoothing_factor", both);
    if (a->downscaling_factor < 0)
        a->downscaling_factor = rs_json_num(json, "downscale_smoothing_factor", both);
    if (a->downscale_to_zero_delay < 0)
        a->downscale_to_zero_delay = a->downscale_delay;
    c->num_replicas = a->initial_replicas >= 0 ? a->initial_replicas : a->min_replicas;
    c->num_replicas = rs_target_capacity_apply(c->num_replicas, capacity);
    a->min_replicas = rs_target_capacity_apply(a->min_replicas, capacity);
    a->max_replicas = rs_target_capacity_apply(a->max_replicas, capacity);
    if (a->initial_replicas >= 0)
        a->initial_replicas = rs_target_capacity_apply(a->initial_replicas, capacity);
}

static void fill_command(struct rs_deployment_conf *c)
{
    const json_t *words = json_object_get(json_object_get(c->json, "rserve"), "command");
    size_t n = json_array_size(words);

    if (n == 0)
        return;
    c->command = rs_alloc((n + 1) * sizeof(*c->command));
    for (size_t i = 0; i < n; i++)
        c->command[i] = json_string_value(json_array_get(words, i));
}

static void fill_rollout(struct rs_deployment_conf *c)
{
    const json_t *json = json_object_get(json_object_get(c->json, "rserve"), "rollout");

    rs_rollout_conf_fill(&c->rollout);
    c->rollout.analysis.enabled = given(json, "analysis");
    c->rollout.canary.enabled = given(json, "canary");
    if (c->max_surge_percent < 0)
        c->max_surge_percent = SURGE_UNSAID;
}

/* `json` comes from a head of this or a neighbouring version: checked like any other input. */
static json_t *check_json(const json_t *json, struct rs_error *err)
{
    rs_auto(rs_arena_fini) struct rs_arena arena = {0};
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    rs_auto(rs_json_decrefp) json_t *checked = NULL, *complete = NULL;
    struct rs_walk w = {.diags = &diags, .code = true};
    const struct rs_node *node = rs_node_from_json(&arena, json, err);
    const json_t *capacity = json_object_get(json, CAPACITY);

    if (!node)
        return NULL;
    if (node->kind != RS_NODE_MAP) {
        rs_error_set(err, RS_INVALID, "expected the options of a deployment");
        return NULL;
    }
    checked = rs_decode(&w, &rs_object_deployment, node);
    rs_buf_fini(&w.path);
    if (rs_diags_to_error(&diags, err) < 0)
        return NULL;
    complete = rs_complete(&rs_object_deployment, checked);
    if (json_is_number(capacity))
        json_object_set_new(complete, CAPACITY, json_deep_copy(capacity));
    return rs_steal(complete);
}

int rs_deployment_conf_from_json(struct rs_deployment_conf **ret, const json_t *json,
                                 struct rs_error *err)
{
    rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *c = rs_alloc(sizeof(*c));

    c->json = check_json(json, err);
    if (!c->json)
        return -1;
    c->sources = json_object();
    rs_fill(&rs_object_deployment, c->json, c);
    if (rs_resources_from_actor_options(&c->resources, c->ray_actor_options, err) < 0)
        return rs_error_wrap(err, "ray_actor_options");
    fill_autoscaling(c, rs_json_num(c->json, CAPACITY, -1));
    fill_command(c);
    fill_rollout(c);
    rs_foresight_conf_fill(&c->foresight);
    c->foresight.capacity = rs_json_num(c->json, CAPACITY, -1);
    rs_logging_conf_fill(&c->logging, json_object_get(c->json, "logging_config"));
    c->runtime_env = json_incref(json_object_get(c->ray_actor_options, "runtime_env"));
    if (!c->runtime_env)
        c->runtime_env = json_object();
    if (c->max_replicas_per_node < 0)
        c->max_replicas_per_node = 0;
    if (c->port < 0)
        c->port = 0;
    *ret = rs_steal(c);
    return 0;
}

bool rs_deployment_conf_grouped(const struct rs_deployment_conf *c)
{
    return c->gang_size > 0 ||
           json_array_size(json_object_get(c->json, "placement_group_bundles")) > 0;
}

void rs_deployment_conf_free(struct rs_deployment_conf *c)
{
    if (!c)
        return;
    rs_resources_fini(&c->resources);
    free(c->command);
    json_decref(c->runtime_env);
    json_decref(c->json);
    json_decref(c->sources);
    free(c);
}

json_t *rs_deployment_conf_json(const struct rs_deployment_conf *c)
{
    json_t *out = json_object();

    for (size_t i = 0; i < rs_object_deployment.count; i++) {
        const struct rs_field *f = &rs_object_deployment.fields[i];
        const json_t *v = json_object_get(c->json, f->name);
        bool shown = f->flags & RS_F_DETAILS;

        if (strcmp(f->name, "rserve") == 0)
            shown = c->kind != RS_KIND_PYTHON;
        if (shown && v && (!json_is_null(v) || strcmp(f->name, "user_config") == 0))
            json_object_set_new(out, f->name, json_deep_copy(v));
    }
    if (json_is_null(json_object_get(c->json, "max_surge_percent")))
        json_object_set_new(out, "max_surge_percent", json_integer(0)); /* Ray's default */
    return out;
}

/* --- what a change asks for ---------------------------------------------------------------------- */

/* The value of a field; an object that is not set counts as one of defaults. A new reference. */
static json_t *value_of(const struct rs_field *f, const json_t *from)
{
    json_t *v = json_object_get(from, f->name);

    if (v && !json_is_null(v))
        return json_incref(v);
    if (f->type == RS_TYPE_OBJECT && !(f->flags & RS_F_SPARSE) && f->reload == RS_RELOAD_NONE)
        return rs_complete(f->object, NULL);
    return v ? json_incref(v) : rs_field_default(f);
}

static void heavy(const struct rs_object *o, const json_t *from, json_t *out)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct rs_field *f = &o->fields[i];
        rs_auto(rs_json_decrefp) json_t *v = value_of(f, from);

        if (f->reload == RS_RELOAD_RESTART) {
            json_object_set(out, f->name, v);
        } else if (f->type == RS_TYPE_OBJECT && f->reload == RS_RELOAD_NONE) {
            json_t *inner = json_object();

            heavy(f->object, v, inner);
            json_object_set_new(out, f->name, inner);
        }
    }
}

uint64_t rs_deployment_conf_heavy_hash(const struct rs_deployment_conf *c)
{
    rs_auto(rs_json_decrefp) json_t *all = json_object();

    heavy(&rs_object_deployment, c->json, all);
    return rs_json_hash(all);
}

/* What a field asks for whose values are `va` and `vb`; 0: it does not differ. */
static unsigned change_of(const struct rs_field *f, const json_t *a, const json_t *b,
                          const json_t *va, const json_t *vb);

static unsigned changes(const struct rs_object *o, const json_t *a, const json_t *b,
                        struct rs_buf *fields)
{
    unsigned all = 0;

    for (size_t i = 0; i < o->count; i++) {
        const struct rs_field *f = &o->fields[i];
        rs_auto(rs_json_decrefp) json_t *va = value_of(f, a), *vb = value_of(f, b);
        unsigned one = change_of(f, a, b, va, vb);

        if (!one)
            continue;
        all |= one;
        if (fields)
            rs_buf_printf(fields, "%s%s", rs_buf_len(fields) ? ", " : "", f->name);
    }
    return all;
}

static unsigned change_of(const struct rs_field *f, const json_t *a, const json_t *b,
                          const json_t *va, const json_t *vb)
{
    unsigned one = f->reload;

    if (f->alias_of || f->flags & RS_F_FORBIDDEN ||
        (json_equal(va, vb) &&
         json_is_null(json_object_get(a, f->name)) == json_is_null(json_object_get(b, f->name))))
        return 0;
    if (f->type == RS_TYPE_OBJECT && f->reload == RS_RELOAD_NONE)
        one = changes(f->object, va, vb, NULL);
    /* Without a user_config there is nothing to call reconfigure() with. */
    if (strcmp(f->name, "user_config") == 0 && json_is_null(vb))
        one = RS_RELOAD_LIGHT;
    return one ? one : (unsigned)RS_RELOAD_LIGHT;
}

unsigned rs_deployment_conf_diff(const struct rs_deployment_conf *a,
                                 const struct rs_deployment_conf *b, struct rs_buf *fields)
{
    unsigned all = changes(&rs_object_deployment, a->json, b->json, fields);

    if (rs_json_num(a->json, CAPACITY, -1) != rs_json_num(b->json, CAPACITY, -1)) {
        all |= RS_RELOAD_LIGHT;
        if (fields)
            rs_buf_printf(fields, "%s%s", rs_buf_len(fields) ? ", " : "", CAPACITY);
    }
    return all;
}

const char *rs_reload_name(unsigned bits)
{
    return bits & RS_RELOAD_RESTART       ? "restart"
           : bits & RS_RELOAD_RECONFIGURE ? "reconfigure"
           : bits                         ? "in place"
                                          : "nothing";
}

static void add_change(json_t *out, const char *path, json_t *before, json_t *after, unsigned bits)
{
    json_array_append_new(out, json_pack("{s:s, s:O, s:O, s:s}", "field", path, "old", before,
                                         "new", after, "asks", rs_reload_name(bits)));
}

/* Down to the innermost fields. `asked`: what the object around them asks for; 0: they say it. */
static void list_changes(const struct rs_object *o, const json_t *a, const json_t *b,
                         const char *above, unsigned asked, json_t *out)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct rs_field *f = &o->fields[i];
        rs_auto(rs_json_decrefp) json_t *va = value_of(f, a), *vb = value_of(f, b);
        rs_auto(rs_freep) char *path = rs_asprintf("%s%s%s", above, *above ? "." : "", f->name);
        json_t *da = json_object_get(a, f->name), *db = json_object_get(b, f->name);
        unsigned one = change_of(f, a, b, va, vb);

        one = one && asked ? asked : one;
        if (one && f->type == RS_TYPE_OBJECT && json_is_object(da) && json_is_object(db) &&
            !json_equal(va, vb))
            list_changes(f->object, va, vb, path, f->reload, out);
        else if (one && json_equal(va, vb)) /* set or not: that is the difference */
            add_change(out, path, da ? da : json_null(), db ? db : json_null(), one);
        else if (one)
            add_change(out, path, va, vb, one);
    }
}

json_t *rs_deployment_conf_changes(const struct rs_deployment_conf *a,
                                   const struct rs_deployment_conf *b)
{
    json_t *out = json_array();
    double before = rs_json_num(a->json, CAPACITY, -1), after = rs_json_num(b->json, CAPACITY, -1);

    list_changes(&rs_object_deployment, a->json, b->json, "", 0, out);
    if (before != after) {
        rs_auto(rs_json_decrefp) json_t *va = before < 0 ? json_null() : json_real(before);
        rs_auto(rs_json_decrefp) json_t *vb = after < 0 ? json_null() : json_real(after);

        add_change(out, CAPACITY, va, vb, RS_RELOAD_LIGHT);
    }
    return out;
}
