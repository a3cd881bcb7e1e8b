// Runs the benchmark on reserved cores and in a private network namespace. With BBR, loopback TCP would measure the pacing
// of BBR and not the servers. A private namespace can be set to reno without changing the machine.

import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'

const MARK = 'FASTIFY_DUPLEX_BENCH'

const SETUP = `
ip link set lo up 2>/dev/null || ifconfig lo up || exit 99
sysctl -qw net.ipv4.tcp_congestion_control=reno || echo reno > /proc/sys/net/ipv4/tcp_congestion_control || exit 99
sysctl -qw net.ipv4.ip_local_port_range='1024 65535' 2>/dev/null
`
const RUN = `
ulimit -n $(ulimit -Hn)
exec "$@"`

/** The command that enters a private network namespace. Null if the machine does not allow one. */
function namespaceCommand (): string[] | null {
  for (const flags of ['-n', '-rn']) {
    if (succeeds('unshare', [flags, 'sh', '-c', SETUP])) return ['unshare', flags, 'sh', '-c', SETUP + RUN, 'sh']
  }
  return null
}

function succeeds (file: string, args: string[]): boolean {
  return spawnSync(file, args, { stdio: 'ignore' }).status === 0
}

export const isIsolated: boolean = process.env[MARK] !== undefined

/** Runs this program again in isolation. @returns its exit code */
export function runIsolated (): number {
  const shell = namespaceCommand() ?? ['sh', '-c', RUN, 'sh']
  const pin = availableParallelism() > 1 && succeeds('taskset', ['-c', '0,1', 'true']) ? 'pinned' : 'free'
  const [file, ...args] = [...shell, ...pinnedIf(pin, [process.execPath, ...process.argv.slice(1)], 'client')]
  return spawnSync(file, args, { stdio: 'inherit', env: { ...process.env, [MARK]: pin } }).status ?? 1
}

/** The command, pinned to the core of the servers or of the client. */
export function pinned (command: string[], role: 'server' | 'client'): string[] {
  return pinnedIf(process.env[MARK], command, role)
}

function pinnedIf (pin: string | undefined, command: string[], role: 'server' | 'client'): string[] {
  return pin === 'pinned' ? ['taskset', '-c', role === 'server' ? '1' : '0', ...command] : command
}

/** How many connections one process may open, with some descriptors left for other files. */
export function connectionLimit (): number {
  const [, limit] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [null, Infinity]
  return Number(limit) - 200
}

export function describeIsolation (): string {
  const control = readFileSync('/proc/sys/net/ipv4/tcp_congestion_control', 'latin1').trim()
  const links = readFileSync('/proc/net/dev', 'latin1').trim().split('\n').length - 2
  const network = links === 1 ? 'a private network namespace' : 'the network namespace of the machine'
  const cores = process.env[MARK] === 'pinned' ? 'client on core 0, server on core 1' : 'cores not pinned'
  return `${network} with TCP ${control}, ${cores}`
}

export function describeMachine (): string {
  const revision = execFileSync('uname', ['-sr']).toString().trim()
  return `Node ${process.version}, ${revision}, ${cpus().length} × ${cpus()[0].model.trim()}`
}
