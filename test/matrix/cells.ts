// Which versions are tried with which.

import { readFileSync } from 'node:fs'
import { intersects, minVersion } from 'semver'

/** What `engines` admits: the newest of each major, and the first of some. */
export const NODES = ['20', '22.12.0', '22', '23', '24', '25', '26.0', '26']

/** Prereleases included, as long as there is nothing else. */
const FASTIFY_6 = '^6.0.0-0'

/** One installation of the dependencies: a version or a range of Fastify, and of packages below it. */
export interface Column { fastify: string, overrides: Record<string, string> }

export interface Cell { node: string, column: Column }

/** The peer range of the plugin, without the prereleases behind it: with those the suite may fail. */
export function supportedFastify (): string {
  const { peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
  return peerDependencies.fastify.split(' || ')[0]
}

export function mayFail ({ fastify }: Column): boolean {
  return !intersects(fastify, supportedFastify())
}

/** `fastify` is a version, a range, or `oldest` or `newest` of those supported. */
function column (fastify: string, overrides: Record<string, string> = {}): Column {
  const range = supportedFastify()
  const named = new Map([['oldest', minVersion(range)!.version], ['newest', range], ['6', FASTIFY_6]])
  return { fastify: named.get(fastify) ?? fastify, overrides }
}

function combine (nodes: string[], columns: Column[]): Cell[] {
  return columns.flatMap((column) => nodes.map((node) => ({ node, column })))
}

/** Without other wishes, the oldest and the newest that are supported. */
export function chosen (nodes = ends(NODES), fastifies = ['oldest', 'newest'], overrides: Record<string, string> = {}): Cell[] {
  return combine(nodes, fastifies.map((fastify) => column(fastify, overrides)))
}

export function all (): Cell[] {
  return [
    ...combine(NODES, [column('oldest'), column('newest'), column('6')]),
    ...combine(ends(NODES), [column('newest', { 'light-my-request': '6.8.0' }), column('newest', { 'find-my-way': 'latest' })])
  ]
}

function ends <T> (list: T[]): T[] {
  return [list[0], list.at(-1)!]
}
