# Completion of `xe` for bash: commands, the parameters of a command, and values where the host can tell them.
# Copy to /usr/share/bash-completion/completions/xe.
#
# Everything is asked of the host that the command line names; nothing is kept but the list of commands.

_xe_ask() {
    command xe "$@" "${_xe_where[@]}" 2>/dev/null </dev/null
}

# The options that say which host is asked, in _xe_where.
_xe_connection() {
    _xe_where=()
    local word value=
    for word in "$@"; do
        if [[ -n $value ]]; then
            _xe_where+=("$value" "$word")
            value=
            continue
        fi
        case $word in
            -s | -h | -p | -u | -pw | -pwf) value=$word ;;
            --nossl | server=* | port=* | username=* | password=* | passwordfile=*) _xe_where+=("$word") ;;
        esac
    done
}

_xe_commands() {
    local key="${_xe_where[*]}"
    if [[ -z $_xe_known || $_xe_known_of != "$key" ]]; then
        _xe_known=$(_xe_ask help --all --minimal)
        _xe_known_of=$key
    fi
    printf '%s\n' "${_xe_known//,/$'\n'}"
}

# The parameters of a command, each with what follows it.
_xe_parameters() {
    local line name
    while IFS= read -r line; do
        case $line in
            *"reqd params"*:* | *"optional params"*:*)
                line=${line#*:}
                for name in ${line//,/ }; do
                    case $name in
                        '<vm-selectors>') printf '%s\n' vm= uuid= power-state= name-label= --multiple ;;
                        '<host-selectors>') printf '%s\n' host= uuid= --multiple ;;
                        '<sr-selectors>') printf '%s\n' sr= uuid= --multiple ;;
                        '<'*) ;;
                        force | multiple | all | live | paused | online | metadata) printf -- '--%s\n' "$name" ;;
                        *:) printf '%s\n' "$name" ;;
                        *) printf '%s=\n' "$name" ;;
                    esac
                done
                ;;
        esac
    done < <(_xe_ask help "$1")
    printf '%s\n' --minimal
}

# The class of records whose uuids a parameter of a command takes.
_xe_class() {
    case $2 in
        uuid)
            case $1 in
                *-param-* | *-list) printf '%s' "${1%%-param-*}" | sed 's/-list$//' ;;
                host-cpu-* | host-crashdump-*) printf '%s' "${1%-*}" ;;
                snapshot-* | template-* | appliance-* | network-* | secret-* | task-* | bond-* | vlan-*) printf '%s' "${1%%-*}" ;;
                vm-* | host-* | vdi-* | vbd-* | vif-* | pif-* | sr-* | pbd-* | pool-*) printf '%s' "${1%%-*}" ;;
            esac
            ;;
        into-vdi-uuid | base-vdi-uuid | vdi-from-uuid | vdi-to-uuid) printf vdi ;;
        suspend-VDI-uuid) printf vdi ;;
        pif-uuids) printf pif ;;
        *-uuid) printf '%s' "${2%-uuid}" ;;
        vm | host | sr | template) printf '%s' "$2" ;;
    esac
}

# The fields of a record that a command can work on.
_xe_fields() {
    local command=$1 uuid=$2 suffix
    case $command in
        *-param-set) suffix='\( RW\)|\(MRW\)' ;;
        *-param-add | *-param-remove) suffix='\(SRW\)|\(MRW\)' ;;
        *-param-clear) suffix='\( RW\)|\(SRW\)|\(MRW\)' ;;
        *) suffix='\(' ;;
    esac
    [[ -n $uuid ]] || uuid=$(_xe_ask "${command%%-param-*}-list" --minimal)
    _xe_ask "${command%%-param-*}-param-list" "uuid=${uuid%%,*}" | grep -E "$suffix" | sed -E 's/^ *([^ ]+) .*/\1/'
}

_xe_values() {
    local command=$1 name=$2 uuid=$3 class
    case $name in
        power-state) printf '%s\n' halted paused running suspended ;;
        param-name) _xe_fields "$command" "$uuid" ;;
        params)
            printf 'all\n'
            _xe_fields "${command%-list}-param-get" ''
            ;;
        type)
            case $command in
                vbd-*) printf '%s\n' Disk CD Floppy ;;
                vdi-*) printf '%s\n' user system ;;
                sr-*) _xe_ask sm-list params=type --minimal | tr , '\n' ;;
            esac
            ;;
        mode)
            case $command in
                vbd-*) printf '%s\n' RO RW ;;
                pif-reconfigure-ip) printf '%s\n' none dhcp static ;;
                bond-*) printf '%s\n' balance-slb active-backup lacp ;;
            esac
            ;;
        on) _xe_ask host-list params=name-label --minimal | tr , '\n' ;;
        cd-name) _xe_ask cd-list params=name-label --minimal | tr , '\n' ;;
        role-name) _xe_ask role-list params=name --minimal | tr , '\n' ;;
        filename | file-name | passwordfile) compgen -f -- "$4" ;;
        *)
            class=$(_xe_class "$command" "$name")
            if [[ -n $class ]]; then
                _xe_ask "$class-list" --minimal | tr , '\n'
                [[ $name == "$class" ]] && _xe_ask "$class-list" params=name-label --minimal | tr , '\n'
            fi
            ;;
    esac
}

_xe() {
    local line=${COMP_LINE:0:COMP_POINT} current word command='' uuid='' position skip='' candidates head=''
    local -a words _xe_where
    current=${line##* }
    read -ra words <<<"$line"
    _xe_connection "${words[@]:1}"
    for ((position = 1; position < ${#words[@]}; position++)); do
        word=${words[position]}
        if [[ $position -eq $((${#words[@]} - 1)) && -n $current ]]; then
            break
        elif [[ -n $skip ]]; then
            skip=''
        else
            case $word in
                -s | -h | -p | -u | -pw | -pwf) skip=1 ;;
                -* | server=* | port=* | username=* | password=* | passwordfile=*) ;;
                uuid=*) uuid=${word#uuid=} ;;
                *=*) ;;
                *) [[ -n $command ]] || command=$word ;;
            esac
        fi
    done
    if [[ -z $command || $command == help ]]; then
        candidates=$(_xe_commands)
    elif [[ $current == *=* ]]; then
        head=${current%%=*}=
        candidates=$(_xe_values "$command" "${current%%=*}" "$uuid" "${current#*=}" | sed "s|^|$head|")
    elif [[ $command == *-param-set ]]; then
        candidates=$(_xe_fields "$command" "$uuid" | sed 's/$/=/'; printf 'uuid=\n')
    else
        candidates=$(_xe_parameters "$command")
    fi
    COMPREPLY=()
    # What stands before the last `=` or `:` is a word of its own to bash, and is there already.
    head=${current%"${current##*[=:]}"}
    [[ $COMP_WORDBREAKS == *=* ]] || head=''
    while IFS= read -r word; do
        if [[ -n $word && $word == "$current"* ]]; then
            word=${word#"$head"}
            COMPREPLY+=("${word// /\\ }")
        fi
    done <<<"$candidates"
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]] && type compopt &>/dev/null; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _xe xe
