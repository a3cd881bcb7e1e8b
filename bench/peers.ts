// Who is compared: each peer is one server process, started with one command.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { http1 } from './client/http1.ts'
import { raw } from './client/raw.ts'
import type { Protocol } from './client/session.ts'

/** bench/, also when this runs from bench/build. */
const HOME = join(__dirname, '..')
const BINARIES = join(HOME, 'build', 'bin')

export interface Peer {
  id: string
  label: string
  protocol: Protocol
  command: string[]
  /** It serves /up and /down. */
  oneWay: boolean
}

const NODE_FLAGS = ['--expose-gc']

function onNode (id: string, label: string, protocol: Protocol, script: string, args: string[] = [], oneWay = true, node = process.execPath): Peer {
  return { id, label, protocol, command: [node, ...NODE_FLAGS, join(__dirname, 'peers', script), ...args], oneWay }
}

function inGo (id: string, label: string, mode: string): Peer {
  return { id, label, protocol: http1, command: [join(BINARIES, 'go'), mode], oneWay: false }
}

export const PEERS: Peer[] = [
  onNode('plugin', 'plugin, `pipeline`', http1, 'plugin.js', ['pipeline']),
  onNode('plugin-iterate', 'plugin, `for await`', http1, 'plugin.js', ['iterate']),
  onNode('plugin-write', 'plugin, `write()`', http1, 'plugin.js', ['write']),
  onNode('net', 'bare `net` pipe', raw, 'net.js', [], false),
  onNode('http', 'node:http', http1, 'http.js'),
  onNode('fastify', 'Fastify `reply.send(stream)`', http1, 'fastify.js'),
  inGo('go-tutorial', 'Go Hijacker, tutorial', 'tutorial'),
  inGo('go-best', 'Go Hijacker, at its best', 'best'),
  inGo('go-full-duplex', 'Go EnableFullDuplex', 'full-duplex')
]

/** Builds what has to be built, and says what cannot be. */
export function build (): void {
  mkdirSync(BINARIES, { recursive: true })
  compile('Go', 'go', ['build', '-o', join(BINARIES, 'go'), join(HOME, 'peers', 'go', 'main.go')])
}

function compile (language: string, tool: string, args: string[]): void {
  try {
    execFileSync(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch (error) {
    const { code, stderr } = error as { code?: string, stderr?: Buffer }
    const reason = code === 'ENOENT' ? `${tool} is not installed` : String(stderr).trim().split('\n').pop()
    console.log(`SKIPPED: the peers in ${language}, ${reason}`)
  }
}

export function isAvailable (peer: Peer): boolean {
  return existsSync(peer.command[0])
}
