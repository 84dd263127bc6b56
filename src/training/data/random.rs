//! Random numbers that are the same on every machine and in every order: a generator per purpose, made from a seed and
//! the number of what it is for. Nothing of it has to be stored to go on after an interruption.

/// xoshiro256++ (Blackman and Vigna), seeded through SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
    /// The second number of the last pair of normal ones.
    spare: Option<f64>,
}

impl Random {
    /// The generator of a seed for one purpose, say the sample of a number.
    pub fn new(seed: u64, purpose: u64) -> Random {
        let mut state = seed;
        let mut mix = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let salt = mix();
        let mut random = Random { state: [mix(), mix(), mix(), salt ^ purpose.wrapping_mul(0xd134_2543_de82_ef95)], spare: None };
        // Purposes that differ in few bits are far apart after some rounds.
        for _ in 0..16 {
            random.bits();
        }
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..1`, in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..count`; 0 if there is nothing to choose from. Without bias (Lemire's method).
    pub fn below(&mut self, count: u64) -> u64 {
        if count == 0 {
            return 0;
        }
        loop {
            let wide = u128::from(self.bits()) * u128::from(count);
            if wide as u64 >= count.wrapping_neg() % count {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Normal with mean 0 and standard deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}
