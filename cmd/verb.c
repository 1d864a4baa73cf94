#include "cmd/verb.h"

#include <string.h>

const struct rs_verb *const rs_verbs[] = {
    /* in the order of --help */
    &rs_verb_run,    &rs_verb_head,    &rs_verb_worker,
    &rs_verb_status, &rs_verb_python,  &rs_verb_completion,
    &rs_verb_help,   &rs_verb_version, NULL,
};
static const struct rs_verb *const unlisted[] = {&rs_verb_instance, NULL};

const struct rs_verb *rs_verb_find(const char *name)
{
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if (strcmp((*v)->name, name) == 0)
            return *v;
    for (const struct rs_verb *const *v = unlisted; *v; v++)
        if (strcmp((*v)->name, name) == 0)
            return *v;
    return NULL;
}

int rs_verb_parse(const struct rs_verb *verb, int argc, char *argv[], void *out,
                  struct rs_error *err)
{
    int n = rs_options_parse(verb->options, argc, argv, out, err);

    if (n < 0)
        return -1;
    if (n < verb->min_args)
        rs_error_set(err, RS_INVALID, "expected %s, got nothing; usage: rserve %s [OPTIONS] %s",
                     verb->args, verb->name, verb->args);
    else if (verb->max_args >= 0 && n > verb->max_args)
        rs_error_set(err, RS_INVALID, "unexpected argument '%s'; usage: rserve %s [OPTIONS] %s",
                     argv[verb->max_args + 1], verb->name, verb->args);
    else
        return n;
    rs_options_fini(verb->options, out);
    return -1;
}
