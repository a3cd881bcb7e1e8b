// The peers that are compared. Each is one server process, started by one command.

import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { http1, http1Lines } from './client/http1.ts'
import { grpc, http2 } from './client/http2.ts'
import { raw } from './client/raw.ts'
import type { Protocol } from './client/session.ts'
import { websocket } from './client/websocket.ts'

/** The folder bench/. This file runs in bench/build. */
const HOME = join(__dirname, '..')
const BINARIES = join(HOME, 'build', 'bin')
/** Where npm installs the runtimes other than Node. */
const RUNTIMES = join(HOME, 'build', 'runtimes')

export interface Peer {
  id: string
  label: string
  protocol: Protocol
  command: string[]
  /** The peer also serves /up and /down. */
  hasOneWay: boolean
  /** It takes nothing but lines of JSON, which the bodies of the bulk measure are not. */
  isLines?: boolean
  /** It is known that the peer stops in some measures. That is a result then, and no failure of the benchmark. */
  mayStall?: boolean
}

export function onNode (id: string, label: string, protocol: Protocol, script: string, args: string[] = [], hasOneWay = true, node = process.execPath): Peer {
  return { id, label, protocol, command: [node, '--expose-gc', join(__dirname, 'peers', script), ...args], hasOneWay }
}

export function compiled (id: string, label: string, binary: string, args: string[] = []): Peer {
  return { id, label, protocol: http1, command: [join(BINARIES, binary), ...args], hasOneWay: false }
}

/** A runtime that npm has as a package with a binary inside. */
function onRuntime (id: string, label: string, range: string, binary: string, args: string[]): Peer & { install: string } {
  const file = join(RUNTIMES, id, 'node_modules', id, 'package.json')
  const version = existsSync(file) ? ` ${JSON.parse(readFileSync(file, 'utf8')).version}` : ''
  const command = [join(RUNTIMES, id, 'node_modules', id, binary), ...args, join(__dirname, 'peers', `${id}.js`)]
  return { id, label: label + version, protocol: http1, command, hasOneWay: true, mayStall: true, install: `${id}@${range}` }
}

const ON_RUNTIMES = [
  onRuntime('bun', '`Bun.serve`', '1', join('bin', 'bun.exe'), ['--expose-gc']),
  onRuntime('deno', '`Deno.serve`', '2', 'deno', ['run', '--allow-all', '--no-lock', '--quiet', '--v8-flags=--expose-gc'])
]

/** Id of the peer that is the physical bound of an echo. */
export const BOUND = 'net-bound'

export const PEERS: Peer[] = [
  onNode('plugin', 'this plugin, `pipeline`', http1, 'plugin.js', ['pipeline']),
  onNode('plugin-iterate', 'this plugin, `for await`', http1, 'plugin.js', ['iterate']),
  onNode('plugin-yield', 'this plugin, `yield`', http1, 'plugin.js', ['yield']),
  onNode('plugin-write', 'this plugin, `write()`', http1, 'plugin.js', ['write']),
  onNode('plugin-iterate-gc', 'this plugin, `for await`, with `--expose-gc`', http1, 'plugin.js', ['iterate', 'gc']),
  onNode('plugin-yield-gc', 'this plugin, `yield`, with `--expose-gc`', http1, 'plugin.js', ['yield', 'gc']),
  { ...onNode('plugin-items', 'this plugin, items', http1Lines, 'plugin.js', ['items']), isLines: true },
  ...otherNodes().map((node) => onOtherNode(node)),
  onNode('net', 'bare `net` pipe', raw, 'net.js', [], false),
  onNode(BOUND, 'bare `net`, the same reads and writes', http1, 'net-bound.js', [], false),
  onNode('http', 'node:http', http1, 'http.js'),
  onNode('fastify', 'Fastify `reply.send(stream)`', http1, 'fastify.js', ['send']),
  onNode('fastify-pipeline', 'Fastify, hijacked, `pipeline`', http1, 'fastify.js', ['pipeline'], false),
  onNode('ws', '`ws`', websocket, 'ws.js', [], false),
  onNode('fastify-websocket', '@fastify/websocket', websocket, 'fastify-websocket.js', [], false),
  onNode('http2', 'node:http2', http2, 'http2.js'),
  compiled('go-tutorial', 'Go Hijacker, tutorial', 'go', ['tutorial']),
  compiled('go-best', 'Go Hijacker, at its best', 'go', ['best']),
  compiled('go-full-duplex', 'Go EnableFullDuplex', 'go', ['full-duplex']),
  compiled('hyper', 'Rust hyper', 'hyper-echo'),
  ...ON_RUNTIMES
]

/** Those of the items measure. They serve no echo. */
export const ITEM_PEERS: Peer[] = [
  onNode('items-yield', 'this plugin, `yield`', http1, 'items-plugin.js', ['yield'], false),
  onNode('items-send', 'this plugin, `send()`', http1, 'items-plugin.js', ['send'], false),
  onNode('items-batches', 'this plugin, `batches()`', http1, 'items-plugin.js', ['batches'], false),
  onNode('items-fastify', 'Fastify, `split2`', http1, 'items-fastify.js', ['generator'], false),
  onNode('items-fastify-mapper', 'Fastify, all in the mapper of `split2`', http1, 'items-fastify.js', ['mapper'], false),
  onNode('items-websocket', '@fastify/websocket, a message per row', websocket, 'items-websocket.js', [], false),
  onNode('items-grpc', '@grpc/grpc-js', grpc, 'items-grpc.js', [], false),
  compiled('items-go', 'Go EnableFullDuplex, `json.Decoder`', 'go', ['full-duplex']),
  onNode('items-limit', 'parse, validate, serialize in a loop', http1, 'items-limit.js', [], false)
]

/** The comma-separated paths in BENCH_NODES, or the versions that .ci/run keeps in .nodes. */
function otherNodes (): string[] {
  const { BENCH_NODES } = process.env
  if (BENCH_NODES !== undefined) return BENCH_NODES.split(',').filter((path) => path !== '')
  const folder = join(HOME, '..', '.nodes', 'node_modules')
  if (!existsSync(folder)) return []
  return readdirSync(folder).filter((name) => name.startsWith('node-')).sort().map((name) => join(folder, name, 'bin', 'node'))
}

function onOtherNode (node: string): Peer {
  const [, version, major] = /^v((\d+)\S*)/.exec(execFileSync(node, ['--version'], { encoding: 'latin1' }))!
  return onNode(`plugin-node-${major}`, `this plugin on Node ${version}`, http1, 'plugin.js', ['pipeline'], true, node)
}

/** Builds or installs the peers that are not on Node, and prints which will be missing. @param isChosen whether a peer is to be measured */
export function buildPeers (isChosen: (peer: Peer) => boolean): void {
  // A binary left over from an earlier build would be measured unnoticed.
  rmSync(BINARIES, { recursive: true, force: true })
  mkdirSync(BINARIES, { recursive: true })
  compile('Go', 'go', ['build', '-o', join(BINARIES, 'go'), join(HOME, 'peers', 'go', 'main.go')])
  const target = join(HOME, 'build', 'hyper')
  if (compile('Rust', 'cargo', ['build', '--quiet', '--release', '--locked', '--manifest-path', join(HOME, 'peers', 'hyper', 'Cargo.toml'), '--target-dir', target])) {
    copyFileSync(join(target, 'release', 'hyper-echo'), join(BINARIES, 'hyper-echo'))
  }
  for (const peer of ON_RUNTIMES) if (isChosen(peer)) install(peer)
  if (otherNodes().length === 0) console.log('SKIPPED: the plugin on other Node versions, there are none in BENCH_NODES or .nodes')
}

/** Once for all runs. In a folder of its own, because npm would remove from it what it has not installed now. */
function install (peer: Peer & { install: string }): void {
  if (isAvailable(peer)) return
  const folder = join(RUNTIMES, peer.id)
  mkdirSync(folder, { recursive: true })
  try {
    execFileSync('npm', ['install', '--prefix', folder, '--no-save', '--no-package-lock', '--no-audit', '--no-fund', peer.install], { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch {}
  if (!isAvailable(peer)) console.log(`SKIPPED: the peer ${peer.id}: npm could not install ${peer.install}`)
}

function compile (language: string, tool: string, args: string[]): boolean {
  try {
    execFileSync(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    return true
  } catch (error) {
    const { code, stderr } = error as { code?: string, stderr?: Buffer }
    const reason = code === 'ENOENT' ? `${tool} is not installed` : String(stderr).trim().split('\n').pop()
    console.log(`SKIPPED: the peers in ${language}: ${reason}`)
    return false
  }
}

export function isAvailable (peer: Peer): boolean {
  return existsSync(peer.command[0])
}
