# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nightjar_global_optspecs
    string join \n config= v/verbose h/help V/version
end

function __fish_nightjar_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nightjar_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nightjar_using_subcommand
    set -l cmd (__fish_nightjar_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nightjar -n "__fish_nightjar_needs_command" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_needs_command" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nightjar -n "__fish_nightjar_needs_command" -s V -l version -d 'Print version'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "run" -d 'Watch the host and export events, until told to stop'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "tail" -d 'Show events as they happen, of a running agent or by itself'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "status" -d 'Show how a running agent is doing'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "doctor" -d 'Say what this host allows, and prove it by real events'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "enrol" -d 'Make this host known to a backend'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "config" -d 'Check, show or document the configuration'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "schema" -d 'Print the JSON Schema of events'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "completions" -d 'Print completions for a shell'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "man" -d 'Print the manual page, or write one for each command'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "docs" -d 'Write all that is made from the program\'s own text'
complete -c nightjar -n "__fish_nightjar_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l json -d 'Write events as lines of JSON to this file, which is rotated; - for standard output' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l kind -d 'Only kinds that fit, as in process.exec, \'process.*\' or \'!process.exit\'; may be given more than once' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l duration -d 'Stop after this long: 10s, 5m, 1h' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l instance -d 'Name of this agent, for more than one on a host' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l backend -d 'Deliver events to this backend: https://HOST:PORT' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l state -d 'Directory of what is kept from one start to the next: spool, identity' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l socket -d 'Socket to answer tail and status on' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l ring-size -d 'Size of the ring buffer between kernel and agent: a power of two, such as 8MiB [default: 4MiB]' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l kernel-log -d 'Carry log lines of the kernel programs into the log, down to this level' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -l no-redact -d 'Leave secrets in arguments as they are'
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand run" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -s o -l output -d 'How events look: compact lines for eyes, or JSON' -r -f -a "compact\t''
json\t''"
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -s n -l number -d 'Stop after this many events' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l duration -d 'Stop after this long: 10s, 5m, 1h' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l since -d 'Begin with events that are at most this old, as far as the agent remembers' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l kind -d 'Only kinds that fit, as in process.exec or \'process.*\'; may be given more than once, as all that follow' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l exe -d 'Only programs whose path fits, as in \'/tmp/*\'' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l pid -d 'Only this process' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l user -d 'Only this user, by name or number, real or effective' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l container -d 'Only this container, by its ID or the beginning of it; \'*\' for any container' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l where -d 'Only events of which this is true: CEL over the fields of the JSON' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l instance -d 'Name of the agent, where it is not the usual one' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l socket -d 'Socket of the agent, where it is not the usual one of its name' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l ring-size -d 'Size of the ring buffer between kernel and agent: a power of two, such as 8MiB [default: 4MiB]' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l kernel-log -d 'Carry log lines of the kernel programs into the log, down to this level' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l tree -d 'And all its descendants, those that there are and those to come'
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l standalone -d 'Load sensors of its own, also where an agent runs'
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -l no-redact -d 'Leave secrets in arguments as they are'
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand tail" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -s o -l output -d 'How it looks: for eyes, or JSON' -r -f -a "text\t''
json\t''"
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -s w -l watch -d 'Draw it again and again, every second or as told' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -l instance -d 'Name of the agent, where it is not the usual one' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -l socket -d 'Socket of the agent, where it is not the usual one of its name' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand status" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -s o -l output -d 'How it looks: for eyes, or JSON' -r -f -a "text\t''
json\t''"
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -l act -d 'Do what the events are to be of, and nothing else: the name of this process' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -l within -d 'Where it does things with files' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -l no-events -d 'Make no events and wait for none'
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -l backend -d 'The backend: https://HOST:PORT' -r
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -l state -d 'Directory of what is kept from one start to the next: spool, identity' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -l authority -d 'Certificate of the authority that has signed the backend\'s, if the token has no fingerprint' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -l force -d 'Replace the identity that there is'
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand enrol" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -f -a "check" -d 'Say what is wrong with the configuration, if anything is (exit code 1)'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -f -a "show" -d 'Show every setting that counts and where it comes from'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -f -a "schema" -d 'Print the JSON Schema of the configuration, for editors'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -f -a "example" -d 'Print a file with every setting, explained and commented out'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and not __fish_seen_subcommand_from check show schema example help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from check" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'As JSON'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from schema" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from schema" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from example" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from example" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from example" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "check" -d 'Say what is wrong with the configuration, if anything is (exit code 1)'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show every setting that counts and where it comes from'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "schema" -d 'Print the JSON Schema of the configuration, for editors'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "example" -d 'Print a file with every setting, explained and commented out'
complete -c nightjar -n "__fish_nightjar_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nightjar -n "__fish_nightjar_using_subcommand schema" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand schema" -l status -d 'Of the status instead'
complete -c nightjar -n "__fish_nightjar_using_subcommand schema" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand schema" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand completions" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand completions" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand completions" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand man" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand man" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand man" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand docs" -l config -d 'Read this configuration instead of /etc/nightjar/nightjar.yaml' -r -F
complete -c nightjar -n "__fish_nightjar_using_subcommand docs" -s v -l verbose -d 'Say more on standard error; twice for all'
complete -c nightjar -n "__fish_nightjar_using_subcommand docs" -s h -l help -d 'Print help'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "run" -d 'Watch the host and export events, until told to stop'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "tail" -d 'Show events as they happen, of a running agent or by itself'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "status" -d 'Show how a running agent is doing'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "doctor" -d 'Say what this host allows, and prove it by real events'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "enrol" -d 'Make this host known to a backend'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "config" -d 'Check, show or document the configuration'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "schema" -d 'Print the JSON Schema of events'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "completions" -d 'Print completions for a shell'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "man" -d 'Print the manual page, or write one for each command'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "docs" -d 'Write all that is made from the program\'s own text'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and not __fish_seen_subcommand_from run tail status doctor enrol config schema completions man docs help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "check" -d 'Say what is wrong with the configuration, if anything is (exit code 1)'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Show every setting that counts and where it comes from'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "schema" -d 'Print the JSON Schema of the configuration, for editors'
complete -c nightjar -n "__fish_nightjar_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "example" -d 'Print a file with every setting, explained and commented out'
