/* rserve: the verb is found, run, and its outcome becomes the exit status. */
#include "cmd/verb.h"

#include <stdio.h>
#include <string.h>

static const char *const version_words[] = {"--version", "-V", NULL};
static const char *const help_words[] = {"--help", "-h", NULL};

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static int failed(const char *who, const struct rs_error *err)
{
    fprintf(stderr, "%s: %s\n", who, err->msg);
    return err->code == RS_INVALID ? RS_EXIT_USAGE : RS_EXIT_FAILED;
}

static int run_verb(const struct rs_verb *verb, int argc, char *argv[])
{
    struct rs_error err = {0};
    char title[64];
    int r;

    if (!verb->raw_args && rs_options_want_help(verb->options, argc, argv)) {
        rs_help_print_verb(verb, stdout);
        return RS_EXIT_OK;
    }
    r = verb->run(argc, argv, &err);
    if (r >= 0)
        return r;
    rs_verb_title(verb, title, sizeof(title));
    return failed(title, &err);
}

static int print_version(const struct rs_verb *group)
{
    char word[] = "version", *argv[] = {word, NULL};

    if (group && group->version)
        printf("%s\n", group->version);
    return run_verb(&rs_verb_version, 1, argv);
}

/* argv[0] is the program or the group; `group` is NULL for rserve itself. */
static int run_program(const struct rs_verb *group, int argc, char *argv[])
{
    const struct rs_verb *verb = argc < 2 ? NULL : rs_verb_find(group, argv[1]);
    struct rs_error err = {0};

    if (argc < 2 || is_one_of(argv[1], help_words)) {
        FILE *out = argc < 2 ? stderr : stdout;

        if (group)
            rs_help_print_verb(group, out);
        else
            rs_help_print(out);
        return argc < 2 ? RS_EXIT_USAGE : RS_EXIT_OK;
    }
    if (is_one_of(argv[1], version_words))
        return print_version(group);
    if (verb && verb->verbs)
        return run_program(verb, argc - 1, argv + 1);
    if (verb)
        return run_verb(verb, argc - 1, argv + 1);
    rs_verb_unknown(group, argv[1], NULL, &err);
    return failed(group ? group->name : "rserve", &err);
}

/* The group that a link to the executable is named after; NULL: rserve by any other name. */
static const struct rs_verb *group_of(const char *program)
{
    const char *slash = strrchr(program, '/');
    const struct rs_verb *verb = rs_verb_find(NULL, slash ? slash + 1 : program);

    return verb && verb->verbs ? verb : NULL;
}

int main(int argc, char *argv[])
{
    int status = run_program(argc > 0 ? group_of(argv[0]) : NULL, argc, argv);

    if (fflush(stdout) != 0 && status == RS_EXIT_OK) {
        perror("rserve: cannot write the output");
        status = RS_EXIT_FAILED;
    }
    return status;
}
