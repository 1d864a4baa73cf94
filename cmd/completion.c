/* Shell completion, written from the tables that parse. */
#include "cmd/verb.h"
#include "core/base/buf.h"
#include "core/base/cleanup.h"

#include <stdio.h>
#include <string.h>

static bool takes_file(const struct rs_option *o)
{
    return o->value && (strstr(o->value, "FILE") || strstr(o->value, "DIR"));
}

static const struct rs_option *options_of(const struct rs_verb *verb)
{
    static const struct rs_option none[] = {{NULL}};

    return verb->options ? verb->options : none;
}

/* `text` for use between single quotes; characters of `escape` get a backslash. */
static void quoted(FILE *out, const char *text, const char *escape)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\'", out);
        else if (strchr(escape, *text))
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void verb_names(FILE *out, const struct rs_verb *group)
{
    const struct rs_verb *const *verbs = group ? group->verbs : rs_verbs;

    for (const struct rs_verb *const *v = verbs; *v; v++)
        fprintf(out, "%s%s", v == verbs ? "" : " ", (*v)->name);
}

static void group_names(FILE *out)
{
    const char *blank = "";

    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs) {
            fprintf(out, "%s%s", blank, (*v)->name);
            blank = " ";
        }
}

static void choices(FILE *out, const struct rs_option *o)
{
    for (size_t i = 0; o->choices[i]; i++)
        fprintf(out, "%s%s", i ? " " : "", o->choices[i]);
}

static void bash_verb(FILE *out, const struct rs_verb *verb)
{
    if (verb->verbs) {
        fprintf(out, "    %s) _rserve_%s $((at + 1)); return ;;\n", verb->name, verb->name);
        return;
    }
    fprintf(out, "    %s)\n        case $prev in\n", verb->name);
    for (const struct rs_option *o = options_of(verb); o->name; o++) {
        if (o->kind == RS_OPT_FLAG || rs_option_is_foreign(o))
            continue;
        fputs("        ", out);
        if (o->letter)
            fprintf(out, "-%c | ", o->letter);
        fprintf(out, "--%s) ", o->name);
        if (o->kind == RS_OPT_CHOICE) {
            fputs("words='", out);
            choices(out, o);
            fputs("' ;;\n", out);
        } else {
            fputs(takes_file(o) ? "files=1 ;;\n" : ";;\n", out);
        }
    }
    fputs("        *)\n            words='--help", out);
    for (const struct rs_option *o = options_of(verb); o->name; o++)
        if (!rs_option_is_foreign(o))
            fprintf(out, " --%s", o->name);
    if (verb == &rs_verb_help) {
        fputc(' ', out);
        verb_names(out, NULL);
    }
    if (verb == &rs_verb_completion)
        fputs(" bash zsh fish", out);
    fprintf(out, "'\n%s            ;;\n        esac\n        ;;\n",
            verb->file_args ? "            files=1\n" : "");
}

/* A function that completes the verbs of a group (NULL: rserve's own); $1 is the place of the verb. */
static void bash_program(FILE *out, const struct rs_verb *group)
{
    fprintf(out,
            "_rserve_%s() {\n"
            "    local at=$1 cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
            "    local words= files=\n"
            "    COMPREPLY=()\n"
            "    if [ \"$COMP_CWORD\" = \"$at\" ]; then\n"
            "        mapfile -t COMPREPLY < <(compgen -W '",
            group ? group->name : "rserve");
    verb_names(out, group);
    fputs(" --help --version' -- \"$cur\")\n"
          "        return\n"
          "    fi\n"
          "    case ${COMP_WORDS[at]} in\n",
          out);
    for (const struct rs_verb *const *v = group ? group->verbs : rs_verbs; *v; v++)
        bash_verb(out, *v);
    fputs("    esac\n"
          "    case $cur in\n"
          "    -*) files= ;;\n"
          "    esac\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "    if [ -n \"$files\" ] && [ ${#COMPREPLY[@]} = 0 -o -z \"$cur\" ]; then\n"
          "        compopt -o filenames\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "    fi\n"
          "}\n",
          out);
}

static void bash(FILE *out)
{
    fputs("# bash completion for rserve: source <(rserve completion bash)\n", out);
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs)
            bash_program(out, *v);
    bash_program(out, NULL);
    fputs("_rserve() {\n"
          "    case ${COMP_WORDS[0]##*/} in\n",
          out);
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs)
            fprintf(out, "    %s) _rserve_%s 1 ;;\n", (*v)->name, (*v)->name);
    fputs("    *) _rserve_rserve 1 ;;\n"
          "    esac\n"
          "}\n"
          "complete -F _rserve rserve\n"
          "# Under its other names only where they are links to it.\n"
          "for _rserve_name in ",
          out);
    group_names(out);
    fputs("; do\n"
          "    case $(readlink -f \"$(type -P $_rserve_name)\" 2>/dev/null) in\n"
          "    */rserve) complete -F _rserve $_rserve_name ;;\n"
          "    esac\n"
          "done\n"
          "unset _rserve_name\n",
          out);
}

static void zsh_option(FILE *out, const struct rs_option *o)
{
    bool repeated = o->kind == RS_OPT_LIST;

    fputs("            ", out);
    if (o->letter)
        fprintf(out, "%s{-%c,--%s}'", repeated ? "'*'" : "", o->letter, o->name);
    else
        fprintf(out, "'%s--%s", repeated ? "*" : "", o->name);
    fprintf(out, "%s[", o->kind == RS_OPT_FLAG ? "" : "=");
    quoted(out, o->help, "[]");
    fputc(']', out);
    if (o->kind != RS_OPT_FLAG) {
        fputc(':', out);
        quoted(out, o->value, ":");
        fputc(':', out);
        if (o->kind == RS_OPT_CHOICE) {
            fputc('(', out);
            choices(out, o);
            fputc(')', out);
        } else if (takes_file(o)) {
            fputs("_files", out);
        }
    }
    fputs("' \\\n", out);
}

static void zsh_verb(FILE *out, const struct rs_verb *v)
{
    if (v->verbs) {
        fprintf(out, "    %s) _rserve_%s ;;\n", v->name, v->name);
        return;
    }
    fprintf(out, "    %s)\n        _arguments \\\n", v->name);
    for (const struct rs_option *o = options_of(v); o->name; o++)
        if (!rs_option_is_foreign(o))
            zsh_option(out, o);
    fputs("            {-h,--help}'[print help]'", out);
    if (v->file_args)
        fputs(" \\\n            '*:argument:_files'", out);
    if (v == &rs_verb_help) {
        fputs(" \\\n            '1:verb:(", out);
        verb_names(out, NULL);
        fputs(")'", out);
    }
    if (v == &rs_verb_completion)
        fputs(" \\\n            '1:shell:(bash zsh fish)'", out);
    fputs("\n        ;;\n", out);
}

/* A function that completes what follows words[1], the program or the group. */
static void zsh_program(FILE *out, const struct rs_verb *group)
{
    const struct rs_verb *const *verbs = group ? group->verbs : rs_verbs;

    fprintf(out, "_rserve_%s() {\n    local -a verbs=(\n", group ? group->name : "rserve");
    for (const struct rs_verb *const *v = verbs; *v; v++) {
        fprintf(out, "        '%s:", (*v)->name);
        quoted(out, (*v)->summary, ":");
        fputs("'\n", out);
    }
    fputs("        '--help:print help'\n"
          "        '--version:print versions'\n"
          "    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        _describe verb verbs\n"
          "        return\n"
          "    fi\n"
          "    local verb=${words[2]}\n"
          "    shift words\n"
          "    (( CURRENT-- ))\n"
          "    case $verb in\n",
          out);
    for (const struct rs_verb *const *v = verbs; *v; v++)
        zsh_verb(out, *v);
    fputs("    esac\n"
          "}\n",
          out);
}

static void zsh(FILE *out)
{
    fputs("#compdef rserve\n"
          "# zsh completion for rserve: rserve completion zsh > \"${fpath[1]}/_rserve\"\n",
          out);
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs)
            zsh_program(out, *v);
    zsh_program(out, NULL);
    fputs("_rserve() {\n"
          "    case ${words[1]:t} in\n",
          out);
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs)
            fprintf(out, "    %s) _rserve_%s ;;\n", (*v)->name, (*v)->name);
    fputs("    *) _rserve_rserve ;;\n"
          "    esac\n"
          "}\n"
          "if [ \"$funcstack[1]\" = _rserve ]; then _rserve \"$@\"; else compdef _rserve rserve; "
          "fi\n"
          "# Under its other names only where they are links to it.\n"
          "for _rserve_name in ",
          out);
    group_names(out);
    fputs("; do\n"
          "    [[ ${commands[$_rserve_name]:A:t} = rserve ]] && compdef _rserve $_rserve_name\n"
          "done\n"
          "unset _rserve_name\n",
          out);
}

/* `command` and, in fish's words, when the verbs of `group` may follow. */
struct fish_place {
    const char *command, *before;
    const struct rs_verb *group;
};

static void fish_option(FILE *out, const struct fish_place *at, const struct rs_verb *v,
                        const struct rs_option *o)
{
    fprintf(out, "complete -c %s -n '%s__fish_seen_subcommand_from %s' -l %s", at->command,
            at->before, v->name, o->name);
    if (o->letter)
        fprintf(out, " -s %c", o->letter);
    if (o->kind == RS_OPT_CHOICE) {
        fputs(" -x -a '", out);
        choices(out, o);
        fputc('\'', out);
    } else if (o->kind != RS_OPT_FLAG) {
        fputs(takes_file(o) ? " -r -F" : " -x", out);
    }
    fputs(" -d '", out);
    quoted(out, o->help, "");
    fputs("'\n", out);
}

static void fish_verbs(FILE *out, const struct fish_place *at)
{
    for (const struct rs_verb *const *v = at->group ? at->group->verbs : rs_verbs; *v; v++) {
        fprintf(out, "complete -c %s -n '%snot __fish_seen_subcommand_from ", at->command,
                at->before);
        verb_names(out, at->group);
        fprintf(out, "' -a %s -d '", (*v)->name);
        quoted(out, (*v)->summary, "");
        fputs("'\n", out);
        if ((*v)->file_args)
            fprintf(out, "complete -c %s -n '%s__fish_seen_subcommand_from %s' -F\n", at->command,
                    at->before, (*v)->name);
        for (const struct rs_option *o = options_of(*v); o->name; o++)
            if (!rs_option_is_foreign(o))
                fish_option(out, at, *v, o);
    }
}

static void fish_group(FILE *out, const struct rs_verb *group)
{
    char before[80];

    snprintf(before, sizeof(before), "__fish_seen_subcommand_from %s; and ", group->name);
    fish_verbs(out, &(struct fish_place){"rserve", before, group});
    fprintf(out,
            "if test (path basename (path resolve (command -s %s; or echo /)[1])) = rserve\n"
            "complete -c %s -f\n",
            group->name, group->name);
    fish_verbs(out, &(struct fish_place){group->name, "", group});
    fputs("end\n", out);
}

static void fish(FILE *out)
{
    rs_auto(rs_buf_fini) struct rs_buf own = {0};

    fputs("# fish completion for rserve: rserve completion fish | source\n"
          "complete -c rserve -f\n"
          "complete -c rserve -n __fish_use_subcommand -s V -l version -d 'print the version'\n"
          "complete -c rserve -s h -l help -d 'print help'\n",
          out);
    rs_buf_puts(&own, "not __fish_seen_subcommand_from");
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs)
            rs_buf_printf(&own, " %s", (*v)->name);
    rs_buf_puts(&own, "; and ");
    fish_verbs(out, &(struct fish_place){"rserve", rs_buf_text(&own), NULL});
    for (const struct rs_verb *const *v = rs_verbs; *v; v++)
        if ((*v)->verbs)
            fish_group(out, *v);
    fputs("complete -c rserve -n '__fish_seen_subcommand_from help' -a '", out);
    verb_names(out, NULL);
    fputs("'\n"
          "complete -c rserve -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n",
          out);
}

static const struct {
    const char *name;
    void (*print)(FILE *out);
} shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};

static int run_completion(int argc, char *argv[], struct rs_error *err)
{
    int n = rs_verb_parse(&rs_verb_completion, argc, argv, NULL, err);

    if (n < 0)
        return -1;
    for (size_t i = 0; i < RS_COUNT(shells); i++)
        if (strcmp(argv[1], shells[i].name) == 0) {
            shells[i].print(stdout);
            return 0;
        }
    return rs_error_set(err, RS_INVALID, "no completion for '%s'; expected bash, zsh or fish",
                        argv[1]);
}

const struct rs_verb rs_verb_completion = {
    .name = "completion",
    .args = "bash|zsh|fish",
    .summary = "print a completion script for a shell",
    .min_args = 1,
    .max_args = 1,
    .run = run_completion,
    .details = "For this shell only:\n"
               "    source <(rserve completion bash)\n"
               "For every new one, add that line to ~/.bashrc.",
};
