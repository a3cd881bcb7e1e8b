// The combinations of versions that are tested.

import { readFileSync } from 'node:fs'
import { intersects, minVersion } from 'semver'

/** Versions that `engines` allows: the newest of each major, and the first of some majors. */
export const NODES = ['20', '22.12.0', '22', '23', '24', '25', '26.0', '26']

/** Includes prereleases until there is a release. */
const FASTIFY_6 = '^6.0.0-0'

/** One installation of the dependencies: a version or range of Fastify, and overrides for its own dependencies. */
export interface Column { fastify: string, overrides: Record<string, string> }

export interface Cell { node: string, column: Column }

/** The first peer range of the plugin. The second is for prereleases, with which the suite may fail. */
export function supportedFastify (): string {
  const { peerDependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
  return peerDependencies.fastify.split(' || ')[0]
}

export function mayFail ({ fastify }: Column): boolean {
  return !intersects(fastify, supportedFastify())
}

/** @param fastify a version or range; or `oldest` or `newest` for those of the supported range; or `6` for its prereleases */
function makeColumn (fastify: string, overrides: Record<string, string> = {}): Column {
  const range = supportedFastify()
  const aliases = new Map([['oldest', minVersion(range)!.version], ['newest', range], ['6', FASTIFY_6]])
  return { fastify: aliases.get(fastify) ?? fastify, overrides }
}

function combine (nodes: string[], columns: Column[]): Cell[] {
  return columns.flatMap((column) => nodes.map((node) => ({ node, column })))
}

/** By default, the oldest and the newest supported versions. */
export function selectCells (nodes = firstAndLast(NODES), fastifies = ['oldest', 'newest'], overrides: Record<string, string> = {}): Cell[] {
  return combine(nodes, fastifies.map((fastify) => makeColumn(fastify, overrides)))
}

export function allCells (): Cell[] {
  return [
    ...combine(NODES, [makeColumn('oldest'), makeColumn('newest'), makeColumn('6')]),
    ...combine(firstAndLast(NODES), [makeColumn('newest', { 'light-my-request': '6.8.0' }), makeColumn('newest', { 'find-my-way': 'latest' })])
  ]
}

function firstAndLast <T> (list: T[]): T[] {
  return [list[0], list.at(-1)!]
}
