# bash completion for doppel. Options come from --help, names of VMs from ps, so that nothing here is to be kept up to date.
_doppel_options() {
	doppel "$1" --help 2>/dev/null | grep -oE -- '^  (-[a-z],|   ) --[a-z-]+' | grep -o -- '--[a-z-]*'
}
_doppel_kept() {
	ls "${XDG_STATE_HOME:-$HOME/.local/state}/doppel" 2>/dev/null
}
_doppel() {
	if [[ ${COMP_WORDS[1]} == @(run|exec) && " ${COMP_WORDS[*]:2:COMP_CWORD-2} " == *" -- "* ]]; then
		compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
		return
	fi
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}
	local commands="run exec ps logs console stop pause resume cp diff apply discard stats top debug regs mem disasm screenshot symbols autopsy profile coverage trace explain doctor help version"

	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W "$commands --help --version" -- "$cur"))
		return
	fi
	case $prev in
	--engine|-e) COMPREPLY=($(compgen -W "auto kvm direct translate interp check" -- "$cur")); return ;;
	--console) COMPREPLY=($(compgen -W "serial virtio" -- "$cur")); return ;;
	--panic) COMPREPLY=($(compgen -W "exit autopsy" -- "$cur")); return ;;
	--symbols|--autopsy|--output|-o) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
	--dump) COMPREPLY=($(compgen -W "translate=" -- "$cur")); return ;;
	--events) COMPREPLY=($(compgen -W "all insn exit exception irq pt mmio pio halt code cpuid rdmsr wrmsr mov-to-cr" -- "$cur")); return ;;
	--trace|--output|-o) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
	--rip|--cpu|--limit|--for|--delay|--count) return ;;
	--on-enospc) COMPREPLY=($(compgen -W "report stop" -- "$cur")); return ;;
	--spool) COMPREPLY=($(compgen -W "printer=" -- "$cur")); return ;;
	--disk|-d)
		if [[ $cur == *,* ]]; then
			COMPREPLY=($(compgen -P "${cur%,*}," -W "ro format=raw format=qcow2 overlay=on offset= size= serial= iops= bps=
				cache=writeback cache=none cache=directsync cache=unsafe discard=off" -- "${cur##*,}"))
			return
		fi
		compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
	--kernel|-k) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -W builtin -- "$cur") $(compgen -f -- "$cur")); return ;;
	--initrd|-i) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
	--share) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur")); return ;;
	--share-server) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -c -- "$cur")); return ;;
	--net) compopt -o nospace 2>/dev/null
		COMPREPLY=($(compgen -W "none user user,hostfwd=tcp: user,hostloopback=on lan= passt,path= socket,path= vhost-user,path= tap,ifname=" -- "$cur")); return ;;
	--user|-u) COMPREPLY=($(compgen -u -- "$cur")); return ;;
	--env) COMPREPLY=($(compgen -e -- "$cur")); return ;;
	--workdir|-w) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur")); return ;;
	--keep) COMPREPLY=($(compgen -W "$(_doppel_kept)" -- "$cur")); return ;;
	--gdb|--listen) COMPREPLY=($(compgen -W "127.0.0.1:1234 :1234" -- "$cur")); return ;;
	--append|-a|--memory|-m|--cpus|-c|--name|-n|--debug-exit|--timeout|-t) return ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "--help $(_doppel_options "$cmd")" -- "$cur"))
		return
	fi
	case $cmd in
	diff|apply|discard)
		if [ "$cmd" = apply ] && [ "$COMP_CWORD" -gt 2 ]; then
			compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur"))
		else
			COMPREPLY=($(compgen -W "$(_doppel_kept)" -- "$cur"))
		fi ;;
	cp)
		compopt -o filenames -o nospace 2>/dev/null
		COMPREPLY=($(compgen -S : -W "$(doppel ps 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$cur") $(compgen -f -- "$cur")) ;;
	console|exec|logs|stop|pause|resume|stats|debug|regs|mem|disasm|screenshot|top|trace|symbols|autopsy|profile|coverage)
		COMPREPLY=($(compgen -W "$(doppel ps 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$cur")) ;;
	explain)
		compopt -o filenames 2>/dev/null
		COMPREPLY=($(compgen -W "popf tables trap smc interrupts balloon" -- "$cur") $(compgen -f -- "$cur")) ;;
	help)
		COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
	esac
}
complete -F _doppel doppel
