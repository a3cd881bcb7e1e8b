// The command line.

import { parseArgs } from 'node:util'

export const MEASURES = ['bulk', 'roundtrips', 'exchanges', 'idle', 'routes', 'growth', 'micro'] as const
export type Measure = typeof MEASURES[number]

export interface Options {
  only: ReadonlySet<Measure>
  /** Ids; null: all. */
  peers: ReadonlySet<string> | null
  seconds: number
  rounds: number
  full: boolean
  check: boolean
  /** Where the chart goes. */
  chart: string | null
}

const HELP = `npm run bench -- [options]

  --only ${MEASURES.join(',')}
                  some of the measures
  --peers a,b     some of the peers: plugin, plugin-iterate, plugin-yield, plugin-write, plugin-node-<major>, net, http,
                  fastify, fastify-pipeline, ws, fastify-websocket, http2, go-tutorial, go-best, go-full-duplex, hyper
  --seconds n     how long one peer is measured in one round
  --rounds n
  --full          more rounds; bulk over 8 connections too, upload and download alone; longer bodies
  --check         what was to be reached, beside what was
  --chart file    the bar chart, as SVG

BENCH_NODES=/path/to/node,/path/to/node: other Node versions for the plugin; default: those in .nodes
`

/** Ends the process when that is all there is to do. */
export function readOptions (): Options {
  let values
  try {
    values = parseArgs({
      options: {
        only: { type: 'string', default: MEASURES.join(',') },
        peers: { type: 'string' },
        seconds: { type: 'string' },
        rounds: { type: 'string' },
        full: { type: 'boolean', default: false },
        check: { type: 'boolean', default: false },
        chart: { type: 'string' },
        help: { type: 'boolean', default: false }
      }
    }).values
  } catch (error) {
    refuse((error as Error).message)
  }
  if (values.help) {
    console.log(HELP)
    process.exit()
  }
  const only = values.only!.split(',') as Measure[]
  const unknown = only.find((measure) => !MEASURES.includes(measure))
  if (unknown !== undefined) refuse(`There is no measure "${unknown}"`)
  const full = values.full!
  return {
    only: new Set(only),
    peers: values.peers === undefined ? null : new Set(values.peers.split(',')),
    seconds: positive(values.seconds, full ? 0.5 : 0.2),
    rounds: positive(values.rounds, full ? 11 : 5),
    full,
    check: values.check!,
    chart: values.chart ?? null
  }
}

function positive (text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text)
  return value > 0 ? value : refuse(`"${text}" is no positive number`)
}

function refuse (message: string): never {
  console.error(`${message}\n\n${HELP}`)
  process.exit(2)
}
