// npm run bench: the plugin and its peers, side by side in one run.

import { parseArgs } from 'node:util'
import { describeMachine, describePlace, isIsolated, runIsolated } from './isolation.ts'
import { bulk } from './measures/bulk.ts'
import { exchanges } from './measures/exchanges.ts'
import { idle } from './measures/idle.ts'
import { roundTrips } from './measures/round-trips.ts'
import { PEERS, build, isAvailable } from './peers.ts'
import { Fleet, type Samples, median } from './rounds.ts'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    peers: { type: 'string' },
    seconds: { type: 'string', default: '0.3' },
    rounds: { type: 'string', default: '5' }
  }
})

async function main (): Promise<void> {
  const seconds = Number(values.seconds)
  const rounds = Number(values.rounds)
  const ids = values.peers?.split(',')
  const peers = PEERS.filter((peer) => isAvailable(peer) && (!ids || ids.includes(peer.id)))
  const only = values.only?.split(',')
  const wanted = (what: string): boolean => !only || only.includes(what)
  console.log(describeMachine())
  console.log(describePlace())

  const show = (title: string, samples: Samples): void => {
    console.log(title)
    const base = samples.get('fastify') ?? [...samples.values()][0]
    const perCore = ({ value, busy }: { value: number, busy?: number }): number => value / busy!
    for (const [id, list] of samples) {
      const ratio = median(list.map(({ value }, i) => value / base[i].value))
      console.log(' ', id.padEnd(20), median(list.map(({ value }) => value)).toFixed(1).padStart(10), ratio.toFixed(2).padStart(8),
        'per busy second', median(list.map(perCore)).toFixed(1).padStart(10), median(list.map((sample, i) => perCore(sample) / perCore(base[i]))).toFixed(2).padStart(8),
        'busy', median(list.map(({ busy }) => busy ?? 0)).toFixed(2), list[0].p50 ? 'p50 ' + median(list.map(({ p50 }) => p50!)).toFixed(3) + ' p99 ' + median(list.map(({ p99 }) => p99!)).toFixed(3) : '')
    }
  }

  const fleet = await Fleet.start(peers)
  if (wanted('bulk')) {
    for (const chunkSize of [64, 1024, 16384, 65536]) {
      show(`bulk ${chunkSize}`, await bulk(fleet, { direction: 'echo', chunkSize, connections: 1 }, rounds, seconds))
    }
  }
  if (wanted('roundtrips')) show('round trips', await roundTrips(fleet, rounds, seconds))
  await fleet.stop()
  if (wanted('exchanges')) {
    const some = await Fleet.start(peers.filter(({ protocol }) => protocol.exchange('/', Buffer.alloc(1), 0) !== null))
    show('exchanges', await exchanges(some, rounds, seconds))
    await some.stop()
  }
  if (wanted('idle')) show('idle', (await idle(peers, 3)).samples)
}

if (isIsolated) {
  main()
} else {
  build()
  process.exitCode = runIsolated()
}
