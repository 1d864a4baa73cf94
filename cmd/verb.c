#include "cmd/verb.h"

#include "core/base/nearest.h"

#include <stdio.h>
#include <string.h>

const struct rs_verb *const rs_verbs[] = {
    /* in the order of --help */
    &rs_verb_run,           &rs_verb_head,       &rs_verb_worker, &rs_verb_status,  &rs_verb_logs,
    &rs_verb_deploy,        &rs_verb_delete,     &rs_verb_python, &rs_verb_serve,   &rs_verb_ray,
    &rs_verb_install_links, &rs_verb_completion, &rs_verb_help,   &rs_verb_version, NULL,
};
static const struct rs_verb *const unlisted[] = {&rs_verb_instance, &rs_verb_control_plane, NULL};

static const struct rs_verb *find_in(const struct rs_verb *const *verbs, const char *name)
{
    for (; *verbs; verbs++)
        if (strcmp((*verbs)->name, name) == 0)
            return *verbs;
    return NULL;
}

const struct rs_verb *rs_verb_find(const struct rs_verb *group, const char *name)
{
    const struct rs_verb *verb = find_in(group ? group->verbs : rs_verbs, name);

    return verb || group ? verb : find_in(unlisted, name);
}

int rs_verb_unknown(const struct rs_verb *group, const char *name, const char *also,
                    struct rs_error *err)
{
    const char *what = name[0] == '-' ? "option" : "verb";
    struct rs_nearest near = rs_nearest_to(name);

    for (const struct rs_verb_absent *a = group ? group->absent : NULL; a && a->name; a++)
        if (strcmp(a->name, name) == 0)
            return rs_error_set(err, RS_INVALID, "rserve has no '%s %s': %s", group->name, name,
                                a->instead);
    for (const struct rs_verb *const *v = group ? group->verbs : rs_verbs; *v; v++)
        rs_nearest_offer(&near, (*v)->name);
    if (also)
        rs_nearest_offer(&near, also);
    rs_nearest_offer(&near, "--help");
    rs_nearest_offer(&near, "--version");
    if (near.best)
        return rs_error_set(err, RS_INVALID, "unknown %s '%s'; did you mean '%s'?", what, name,
                            near.best);
    return rs_error_set(err, RS_INVALID, "unknown %s '%s'; '%s --help' lists the verbs", what, name,
                        group ? group->name : "rserve");
}

void rs_verb_title(const struct rs_verb *verb, char *buf, size_t size)
{
    snprintf(buf, size, "%s %s", verb->of ? verb->of : "rserve", verb->name);
}

int rs_verb_parse(const struct rs_verb *verb, int argc, char *argv[], void *out,
                  struct rs_error *err)
{
    int n = rs_options_parse(verb->options, argc, argv, out, err);
    char title[64];

    if (n < 0)
        return -1;
    rs_verb_title(verb, title, sizeof(title));
    if (n < verb->min_args)
        rs_error_set(err, RS_INVALID, "expected %s, got nothing; usage: %s [OPTIONS] %s",
                     verb->args, title, verb->args);
    else if (verb->max_args >= 0 && n > verb->max_args)
        rs_error_set(err, RS_INVALID, "unexpected argument '%s'; usage: %s [OPTIONS] %s",
                     argv[verb->max_args + 1], title, verb->args);
    else
        return n;
    rs_options_fini(verb->options, out);
    return -1;
}
